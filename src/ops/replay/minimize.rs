//! The smallest transaction that still shows a change.
//!
//! Parts are taken away as long as the same change comes out on fresh
//! instances: calls from the end, headers, query parameters, segments of the
//! path, and the body, by halves and then byte by byte; of a hook's context
//! whatever it has.

mod contexts;

use std::sync::Arc;

use crate::event::{BodyChunk, Event, Headers, RequestHead, ResponseHead};
use crate::question::Question;

/// Trials for one transaction; each is a call or two of each module.
const MAX_TRIALS: usize = 2_000;

/// What is left, or why nothing was taken.
pub(super) enum Minimized {
    /// Smaller than before.
    To(Vec<Question<'static>>),
    /// Nothing could go.
    Already,
    /// The change does not come out on fresh instances: it depends on earlier
    /// requests.
    NotReproduced,
    /// Nobody knows what to look for in anything smaller.
    Unknown,
}

/// Takes away what `shows` does not need.
pub(super) fn minimize(
    inputs: &[Question<'_>],
    shows: impl Fn(&[Question<'_>]) -> bool,
) -> Minimized {
    if !shows(inputs) {
        return Minimized::NotReproduced;
    }
    let events: Option<Vec<Event>> = inputs.iter().map(|input| input.event().cloned()).collect();
    let Some(events) = events else {
        return contexts::minimize(inputs, shows);
    };
    let shows = |events: &[Event]| {
        let inputs: Vec<Question<'_>> = events.iter().map(Question::from).collect();
        shows(&inputs)
    };
    let mut search = Search {
        parts: Parts::of(&events),
        shows,
        trials: 0,
        progress: false,
    };
    loop {
        search.progress = false;
        search.round();
        if !search.progress || search.trials >= MAX_TRIALS {
            break;
        }
    }
    let left = search.parts.events();
    if left == events {
        Minimized::Already
    } else {
        Minimized::To(left.into_iter().map(Question::from).collect())
    }
}

/// A transaction taken apart.
#[derive(Clone)]
struct Parts {
    kinds: Vec<Event>,
    request: Option<RequestHead>,
    response: Option<ResponseHead>,
}

impl Parts {
    fn of(events: &[Event]) -> Self {
        let mut request = None;
        let mut response = None;
        for event in events {
            match event {
                Event::RequestHeaders(head) => request = Some(head.clone()),
                Event::ResponseHeaders(head) => response = Some(head.clone()),
                Event::RequestBody { request: known, .. } => {
                    request = request.or_else(|| known.as_deref().cloned());
                }
                Event::ResponseBody {
                    request: known,
                    response: head,
                    ..
                } => {
                    request = request.or_else(|| known.as_deref().cloned());
                    response = response.or_else(|| head.as_deref().cloned());
                }
            }
        }
        Self {
            kinds: events.to_vec(),
            request,
            response,
        }
    }

    /// The events again, each with the heads as they are now.
    fn events(&self) -> Vec<Event> {
        let request = self.request.clone().map(Arc::new);
        let response = self.response.clone().map(Arc::new);
        self.kinds
            .iter()
            .map(|event| match event {
                Event::RequestHeaders(head) => {
                    Event::RequestHeaders(self.request.clone().unwrap_or_else(|| head.clone()))
                }
                Event::ResponseHeaders(head) => {
                    Event::ResponseHeaders(self.response.clone().unwrap_or_else(|| head.clone()))
                }
                Event::RequestBody { chunk, .. } => Event::RequestBody {
                    chunk: chunk.clone(),
                    request: request.clone(),
                },
                Event::ResponseBody { chunk, .. } => Event::ResponseBody {
                    chunk: chunk.clone(),
                    request: request.clone(),
                    response: response.clone(),
                },
            })
            .collect()
    }

    fn chunk(&mut self, index: usize) -> Option<&mut BodyChunk> {
        match self.kinds.get_mut(index)? {
            Event::RequestBody { chunk, .. } | Event::ResponseBody { chunk, .. } => Some(chunk),
            Event::RequestHeaders(_) | Event::ResponseHeaders(_) => None,
        }
    }
}

struct Search<F> {
    parts: Parts,
    shows: F,
    trials: usize,
    progress: bool,
}

impl<F: Fn(&[Event]) -> bool> Search<F> {
    /// Keeps a change that still shows.
    fn attempt(&mut self, change: impl FnOnce(&mut Parts)) -> bool {
        if self.trials >= MAX_TRIALS {
            return false;
        }
        let mut smaller = self.parts.clone();
        change(&mut smaller);
        self.trials += 1;
        let shows = !smaller.kinds.is_empty() && (self.shows)(&smaller.events());
        if shows {
            self.parts = smaller;
            self.progress = true;
        }
        shows
    }

    fn round(&mut self) {
        for index in (0..self.parts.kinds.len()).rev() {
            self.attempt(|parts| {
                parts.kinds.remove(index);
            });
        }
        self.headers(|parts| parts.request.as_mut().map(|head| &mut head.headers));
        self.headers(|parts| parts.response.as_mut().map(|head| &mut head.headers));
        self.query();
        self.path();
        for index in 0..self.parts.kinds.len() {
            self.body(index);
        }
    }

    fn headers(&mut self, of: impl Fn(&mut Parts) -> Option<&mut Headers>) {
        let Some(count) = of(&mut self.parts).map(|headers| headers.len()) else {
            return;
        };
        let mut size = count;
        // Many at once first, for the many that never matter.
        while size > 0 {
            let mut at = 0;
            while let Some(len) = of(&mut self.parts).map(|headers| headers.len())
                && at < len
            {
                let end = (at + size).min(len);
                let gone = self.attempt(|parts| {
                    if let Some(headers) = of(parts) {
                        *headers = headers.without(&(at..end));
                    }
                });
                if !gone {
                    at = end;
                }
            }
            size /= 2;
        }
    }

    fn uri(&self) -> Option<String> {
        self.parts.request.as_ref().map(|head| head.uri.clone())
    }

    fn set_uri(&mut self, uri: String) -> bool {
        if self.uri().is_none_or(|now| now == uri) {
            return false;
        }
        self.attempt(|parts| {
            if let Some(head) = &mut parts.request {
                head.uri = uri;
            }
        })
    }

    fn query(&mut self) {
        let mut at = 0;
        while let Some(uri) = self.uri()
            && let Some((path, query)) = uri.split_once('?')
        {
            let mut parameters: Vec<&str> = query.split('&').collect();
            if at >= parameters.len() {
                break;
            }
            parameters.remove(at);
            let smaller = if parameters.is_empty() {
                path.to_owned()
            } else {
                format!("{path}?{}", parameters.join("&"))
            };
            if !self.set_uri(smaller) {
                at += 1;
            }
        }
    }

    fn path(&mut self) {
        let mut at = 1;
        while let Some(uri) = self.uri() {
            let (path, query) = uri
                .split_once('?')
                .map_or((uri.as_str(), None), |(path, query)| (path, Some(query)));
            let mut segments: Vec<&str> = path.split('/').collect();
            if !path.starts_with('/') || at >= segments.len() {
                break;
            }
            segments.remove(at);
            let mut smaller = segments.join("/");
            if smaller.is_empty() {
                smaller.push('/');
            }
            if let Some(query) = query {
                smaller = format!("{smaller}?{query}");
            }
            if !self.set_uri(smaller) {
                at += 1;
            }
        }
    }

    fn body(&mut self, index: usize) {
        let size = |this: &mut Self| this.parts.chunk(index).map_or(0, |chunk| chunk.data.len());
        let mut step = size(self);
        while step > 0 {
            let mut at = 0;
            while at < size(self) {
                let end = (at + step).min(size(self));
                let gone = self.attempt(|parts| {
                    if let Some(chunk) = parts.chunk(index) {
                        chunk.data.drain(at..end);
                        let left = chunk.data.len() as u64;
                        chunk.total_size = chunk.total_size.map(|_| left);
                        chunk.transferred_bytes = left;
                    }
                });
                if !gone {
                    at = end;
                }
                if self.trials >= MAX_TRIALS {
                    return;
                }
            }
            step /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Vec<Event> {
        let headers = (0..20)
            .map(|index| (format!("x-{index}"), "v".to_owned()))
            .chain([("x-flag".to_owned(), "on".to_owned())])
            .collect();
        let head = RequestHead {
            method: "POST".to_owned(),
            uri: "/a/b/c?x=1&y=2&z=3".to_owned(),
            headers,
            ..RequestHead::default()
        };
        vec![
            Event::RequestHeaders(head.clone()),
            Event::RequestBody {
                chunk: BodyChunk {
                    data: b"hello evil world".to_vec(),
                    is_last: true,
                    ..BodyChunk::default()
                },
                request: Some(Arc::new(head)),
            },
        ]
    }

    fn smallest(shows: impl Fn(&[Event]) -> bool) -> Vec<Event> {
        let inputs: Vec<Question<'static>> = request().into_iter().map(Question::from).collect();
        let events = |inputs: &[Question<'_>]| -> Vec<Event> {
            inputs
                .iter()
                .filter_map(|input| input.event().cloned())
                .collect()
        };
        let Minimized::To(left) = minimize(&inputs, |inputs| shows(&events(inputs))) else {
            panic!("smaller");
        };
        events(&left)
    }

    #[test]
    fn only_what_matters_is_left() {
        let left = smallest(
            |events| matches!(events.first(), Some(Event::RequestHeaders(head)) if head.headers.iter().any(|(name, _)| name == "x-flag") && head.uri.contains("y=2")),
        );
        let [Event::RequestHeaders(head)] = left.as_slice() else {
            panic!("{left:?}");
        };
        assert_eq!(head.headers, Headers::from([("x-flag", "on")]));
        assert_eq!(head.uri, "/?y=2");
    }

    #[test]
    fn bodies_shrink_to_their_core() {
        let left = smallest(|events| {
            events.iter().any(|event| matches!(event, Event::RequestBody { chunk, .. } if chunk.data.windows(4).any(|part| part == b"evil")))
        });
        assert!(
            matches!(left.as_slice(), [Event::RequestBody { chunk, .. }] if chunk.data == b"evil"),
            "{left:?}"
        );
    }

    #[test]
    fn what_fresh_instances_do_not_show_is_said() {
        let inputs: Vec<Question<'static>> = request().into_iter().map(Question::from).collect();
        assert!(matches!(
            minimize(&inputs, |_| false),
            Minimized::NotReproduced
        ));
    }
}
