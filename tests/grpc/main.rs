//! The gRPC transport at its socket, driven by tonic's client: a gRPC
//! implementation that is not ours. Names begin with the row of the fault
//! catalogue they prove, where there is one.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod events;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod slow;
#[cfg(test)]
mod support;
