//! A closed loop: as many events in flight as there may be, always. In v1 too,
//! where no proxy sends ahead of an answer, to see what the frames cost.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;

use super::args::Protocol;
use super::frames::{self, Template};
use super::process::Served;

/// Nothing takes so long; a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Load {
    pub(crate) protocol: Protocol,
    pub(crate) depth: usize,
    pub(crate) connections: usize,
    pub(crate) warm_up: Duration,
    pub(crate) seconds: Duration,
}

/// What came of one row.
pub(crate) struct Measured {
    pub(crate) latencies_ns: Histogram<u64>,
    time: Duration,
    cpu: Duration,
}

impl Measured {
    pub(crate) fn events_per_second(&self) -> f64 {
        self.latencies_ns.len() as f64 / self.time.as_secs_f64()
    }

    pub(crate) fn cpu_us_per_event(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.latencies_ns.len() as f64
    }
}

/// What the threads are told.
#[derive(Default)]
struct Phase {
    measures: AtomicBool,
    over: AtomicBool,
}

impl Load {
    pub(crate) fn run(&self, served: &Served) -> Result<Measured> {
        let phase = Phase::default();
        let socket = served.socket();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.connections)
                .map(|number| {
                    let (phase, socket) = (&phase, &socket);
                    scope.spawn(move || self.connection(number, socket, phase))
                })
                .collect();
            std::thread::sleep(self.warm_up);
            let (start, cpu) = (Instant::now(), served.cpu()?);
            phase.measures.store(true, Ordering::Relaxed);
            std::thread::sleep(self.seconds);
            phase.measures.store(false, Ordering::Relaxed);
            let (time, cpu) = (start.elapsed(), served.cpu()? - cpu);
            phase.over.store(true, Ordering::Relaxed);
            let mut latencies_ns = Histogram::new(3)?;
            for thread in threads {
                let Ok(latencies) = thread.join() else {
                    bail!("a connection's thread panicked");
                };
                latencies_ns.add(latencies?)?;
            }
            Ok(Measured {
                latencies_ns,
                time,
                cpu,
            })
        })
    }

    /// Sends and receives until it is over and all is answered.
    fn connection(&self, number: usize, socket: &Path, phase: &Phase) -> Result<Histogram<u64>> {
        let template = Template::new(self.protocol);
        let mut stream = self.connect(socket)?;
        let mut latencies = Histogram::new(3)?;
        let mut sent_at = vec![Instant::now(); self.depth];
        let (mut sent, mut answered) = (0, 0);
        let mut out = Vec::new();
        let mut received = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        for slot in 0..self.depth {
            template.write([number, slot, sent], &mut out);
            sent += 1;
        }
        while answered < sent {
            stream.write_all(&out)?;
            out.clear();
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                bail!("closed after {answered} answers to {sent} events");
            }
            received.extend_from_slice(&buffer[..count]);
            let now = Instant::now();
            let mut done = 0;
            while let Some(length) = frames::whole(&received[done..]) {
                let answer = &received[done..done + length];
                done += length;
                // In v1 answers come in order, so the places go round.
                let slot = frames::check(self.protocol, answer)?.unwrap_or(answered % self.depth);
                answered += 1;
                let began = sent_at.get_mut(slot).context("no such place")?;
                if phase.measures.load(Ordering::Relaxed) {
                    let latency = now.duration_since(*began).as_nanos();
                    latencies.record(u64::try_from(latency)?)?;
                }
                if !phase.over.load(Ordering::Relaxed) {
                    template.write([number, slot, sent], &mut out);
                    sent += 1;
                    *began = now;
                }
            }
            received.drain(..done);
        }
        Ok(latencies)
    }

    fn connect(&self, socket: &Path) -> Result<UnixStream> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        if self.protocol == Protocol::V2 {
            stream.write_all(&frames::handshake())?;
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length))?];
            stream.read_exact(&mut answer)?;
        }
        Ok(stream)
    }
}
