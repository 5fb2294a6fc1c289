//! The smoke call: before a module answers for anybody, each of its handlers
//! is called once with a small, valid event of an ordinary exchange.
//!
//! In: a compiled module and how it is to be called. Out: nothing, or the
//! fault that ended it. The instance is made for this and dropped afterwards,
//! so that no guest can remember an event that never was.

use std::sync::Arc;

use crate::abi::handler_name;
use crate::error::Error;
use crate::event::{BodyChunk, Event, EventKind, RequestHead, ResponseHead};
use crate::fault::{Fault, FaultCode};
use crate::guest::Instance;
use crate::guest::module::Module;
use crate::policy::PolicySettings;
use crate::question::{Phase, Question};

/// A deadline may be the machine's doing; a guest that runs away does so
/// every time.
const TRIES: usize = 3;

/// Calls every handler of the module once, under the limits it will have.
///
/// # Errors
/// [`Error::Start`] where no instance can be made, [`Error::Smoke`] with the
/// handler and its fault.
pub(crate) fn smoke_call(module: &Arc<Module>, settings: &PolicySettings) -> Result<(), Error> {
    let new = || {
        Instance::new(module, settings.pool.limits).map_err(|fault| Error::Start {
            path: module.path.clone(),
            fault,
        })
    };
    let mut instance = new()?;
    for event in exchange() {
        let handler = handler_name(event.kind());
        if !module.handles(Phase::Event(event.kind())) {
            continue;
        }
        let mut call = || -> Result<Result<(), Fault>, Error> {
            if instance.poison().is_some() {
                instance = new()?;
            }
            let (result, _) = instance.ask(&Question::from(&event), settings.asking());
            Ok(result.map(drop))
        };
        let mut tries = 1;
        loop {
            match call()? {
                Err(fault) if fault.code == FaultCode::Deadline && tries < TRIES => tries += 1,
                Err(fault) => {
                    return Err(Error::Smoke {
                        path: module.path.clone(),
                        handler,
                        fault: Box::new(fault),
                    });
                }
                Ok(()) => break,
            }
        }
    }
    Ok(())
}

/// An ordinary exchange: an event of each kind.
fn exchange() -> [Event; EventKind::ALL.len()] {
    let id = "smoke-call";
    let fields = |fields: &[(&str, &str)]| {
        fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let request = Arc::new(RequestHead {
        correlation_id: id.to_owned(),
        method: "POST".to_owned(),
        uri: "/".to_owned(),
        client_ip: "192.0.2.1".to_owned(),
        headers: fields(&[
            ("host", "www.example.com"),
            ("user-agent", "Mozilla/5.0"),
            ("content-type", "text/plain"),
        ]),
    });
    let response = Arc::new(ResponseHead {
        correlation_id: id.to_owned(),
        status: 200,
        headers: fields(&[("content-type", "text/plain")]),
    });
    let chunk = BodyChunk {
        correlation_id: id.to_owned(),
        is_last: true,
        total_size: Some(5),
        transferred_bytes: 5,
        data: b"hello".to_vec(),
        ..BodyChunk::default()
    };
    [
        Event::RequestHeaders(RequestHead::clone(&request)),
        Event::RequestBody {
            chunk: chunk.clone(),
            request: Some(Arc::clone(&request)),
        },
        Event::ResponseHeaders(ResponseHead::clone(&response)),
        Event::ResponseBody {
            chunk,
            request: Some(request),
            response: Some(response),
        },
    ]
}
