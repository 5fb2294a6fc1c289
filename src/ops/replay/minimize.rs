//! The smallest transaction that still shows a change.
//!
//! Parts are taken away as long as the same change comes out on fresh
//! instances: calls from the end, headers, query parameters, segments of the
//! path, and the body, by halves and then byte by byte; of a hook's context, and
//! of a body of JSON, whatever it has: keys, elements and characters. What chunks
//! say of their positions and sizes stays true.

use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;

use crate::event::{BodyChunk, Event, Headers, RequestHead, ResponseHead};
use crate::guest::convention::json_buffer::write_input;
use crate::question::{HeaderNames, Question, Timed};

/// Trials for one transaction; each is a call or two of each module.
const MAX_TRIALS: usize = 2_000;
/// Bytes of input that all of them may have: each is a copy of the transaction.
const MAX_BYTES: usize = 4 << 30;

/// A question with the time that it keeps.
type Asked = Timed<Question<'static>>;
type Questions = Vec<Asked>;

/// What is left, or why nothing was taken.
pub(super) enum Minimized {
    /// Smaller than before.
    To(Questions),
    /// Nothing could go.
    Already,
    /// The change does not come out on fresh instances: it depends on earlier
    /// requests.
    NotReproduced,
}

/// Takes away what `shows` does not need, as long as `may_go_on` says so.
pub(super) fn minimize(
    questions: &[Asked],
    shows: impl Fn(&[Asked]) -> bool,
    may_go_on: impl Fn() -> bool,
) -> Minimized {
    let mut left = questions.to_vec();
    Heads::of(&left).put(&mut left);
    if !shows(&left) {
        return Minimized::NotReproduced;
    }
    let mut search = Search {
        framing: Framing::of(&left),
        size: size_of(&left),
        left,
        shows,
        may_go_on,
        trials: 0,
        bytes: 0,
        progress: true,
    };
    while std::mem::take(&mut search.progress) && !search.is_over() {
        search.round();
    }
    if search.left == questions {
        Minimized::Already
    } else {
        Minimized::To(search.left)
    }
}

/// The heads of an exchange, which its body events repeat.
struct Heads {
    request: Option<Arc<RequestHead>>,
    response: Option<Arc<ResponseHead>>,
}

impl Heads {
    fn of(questions: &[Asked]) -> Self {
        let (mut request, mut response) = (None, None);
        for event in questions.iter().filter_map(|it| it.question.event()) {
            match event {
                Event::RequestHeaders(head) => request = Some(Arc::new(head.clone())),
                Event::ResponseHeaders(head) => response = Some(Arc::new(head.clone())),
                Event::RequestBody { request: known, .. } => {
                    request = request.or_else(|| known.clone());
                }
                Event::ResponseBody {
                    request: known,
                    response: head,
                    ..
                } => {
                    request = request.or_else(|| known.clone());
                    response = response.or_else(|| head.clone());
                }
            }
        }
        Self { request, response }
    }

    /// Writes them wherever they stand.
    fn put(&self, questions: &mut Questions) {
        for event in questions.iter_mut().filter_map(event_of) {
            match event {
                Event::RequestHeaders(head) => {
                    if let Some(request) = &self.request {
                        head.clone_from(request);
                    }
                }
                Event::ResponseHeaders(head) => {
                    if let Some(response) = &self.response {
                        head.clone_from(response);
                    }
                }
                Event::RequestBody { request, .. } => request.clone_from(&self.request),
                Event::ResponseBody {
                    request, response, ..
                } => {
                    request.clone_from(&self.request);
                    response.clone_from(&self.response);
                }
            }
        }
    }

    fn request_headers(&mut self) -> Option<&mut Headers> {
        let head = self.request.as_mut()?;
        Some(&mut Arc::make_mut(head).headers)
    }

    fn response_headers(&mut self) -> Option<&mut Headers> {
        let head = self.response.as_mut()?;
        Some(&mut Arc::make_mut(head).headers)
    }
}

fn event_of(asked: &mut Asked) -> Option<&mut Event> {
    match &mut asked.question {
        Question::Event(event) => Some(event.to_mut()),
        Question::Hook(..) | Question::Exact { .. } => None,
    }
}

fn chunk_of(asked: &Asked) -> Option<&BodyChunk> {
    match asked.question.event()? {
        Event::RequestBody { chunk, .. } | Event::ResponseBody { chunk, .. } => Some(chunk),
        Event::RequestHeaders(_) | Event::ResponseHeaders(_) => None,
    }
}

fn chunk_mut(asked: &mut Asked) -> Option<&mut BodyChunk> {
    match event_of(asked)? {
        Event::RequestBody { chunk, .. } | Event::ResponseBody { chunk, .. } => Some(chunk),
        Event::RequestHeaders(_) | Event::ResponseHeaders(_) => None,
    }
}

/// Which of what a body's chunks say of each other is true, and so stays true
/// while parts of the body are taken away.
struct Framing {
    request: Chunks,
    response: Chunks,
}

/// The same of one side.
struct Chunks {
    /// Each has its position.
    are_numbered: bool,
    /// Only the last says, or does not say, that it is.
    has_end: Option<bool>,
    /// Each says how much came until then.
    are_counted: bool,
    /// Those that say the whole size are right.
    are_sized: bool,
    /// The head's `content-length` is right.
    has_length: bool,
}

const LENGTH: &str = "content-length";

fn is_of(chunk: &Asked, is_request: bool) -> bool {
    let is_side = |event: &Event| event.kind().is_request() == is_request;
    chunk.question.event().is_some_and(is_side)
}

/// The size of a whole body, and of it up to each chunk.
fn sizes<'q>(chunks: impl Iterator<Item = &'q BodyChunk>) -> (u64, Vec<u64>) {
    let mut size = 0;
    let until = chunks.map(|chunk| {
        size += chunk.data.len() as u64;
        size
    });
    let until = until.collect();
    (size, until)
}

impl Framing {
    fn of(questions: &[Asked]) -> Self {
        let side = |is_request: bool, headers: Option<&Headers>| {
            let questions = questions.iter().filter(|it| is_of(it, is_request));
            let chunks: Vec<&BodyChunk> = questions.filter_map(chunk_of).collect();
            let (size, until) = sizes(chunks.iter().copied());
            let length = headers.and_then(|headers| headers.value(LENGTH));
            let before_last = chunks
                .split_last()
                .map(|(last, before)| (last.is_last, before));
            Chunks {
                are_numbered: (0..).zip(&chunks).all(|(at, it)| it.chunk_index == at),
                has_end: before_last
                    .filter(|(_, before)| before.iter().all(|chunk| !chunk.is_last))
                    .map(|(is_last, _)| is_last),
                are_counted: chunks
                    .iter()
                    .zip(until)
                    .all(|(it, until)| it.transferred_bytes == until),
                are_sized: chunks
                    .iter()
                    .all(|it| it.total_size.is_none_or(|all| all == size)),
                has_length: length.is_some_and(|length| length == size.to_string()),
            }
        };
        let heads = Heads::of(questions);
        Self {
            request: side(true, heads.request.as_ref().map(|head| &head.headers)),
            response: side(false, heads.response.as_ref().map(|head| &head.headers)),
        }
    }

    /// Makes it true again.
    fn put(&self, questions: &mut Questions) {
        let mut heads = Heads::of(questions);
        self.request.put(questions, (true, heads.request_headers()));
        self.response
            .put(questions, (false, heads.response_headers()));
        heads.put(questions);
    }
}

impl Chunks {
    fn put(&self, questions: &mut Questions, (is_request, headers): (bool, Option<&mut Headers>)) {
        let mine = questions.iter_mut().filter(|it| is_of(it, is_request));
        let mut chunks: Vec<&mut BodyChunk> = mine.filter_map(chunk_mut).collect();
        let (size, until) = sizes(chunks.iter().map(|chunk| &**chunk));
        let last = chunks.len();
        for ((at, chunk), until) in (0..).zip(&mut chunks).zip(until) {
            if self.are_numbered {
                chunk.chunk_index = at;
            }
            if let Some(has_end) = self.has_end {
                chunk.is_last = has_end && at as usize + 1 == last;
            }
            if self.are_counted {
                chunk.transferred_bytes = until;
            }
            if self.are_sized {
                chunk.total_size = chunk.total_size.map(|_| size);
            }
        }
        if let Some(headers) = headers.filter(|_| self.has_length && last > 0) {
            let size = size.to_string();
            let value = |(name, value)| {
                let is_length = str::eq_ignore_ascii_case(name, LENGTH);
                (name, if is_length { &*size } else { value })
            };
            *headers = headers.iter().map(value).collect();
        }
    }
}

/// What a hook's context or a body holds, as JSON with parts.
fn document_of(asked: &Asked) -> Option<Value> {
    match &asked.question {
        Question::Hook(_, context) => serde_json::to_value(context).ok(),
        Question::Event(_) => {
            let value = serde_json::from_slice(&chunk_of(asked)?.data);
            value
                .ok()
                .filter(|value: &Value| value.is_object() || value.is_array())
        }
        Question::Exact { .. } => None,
    }
}

/// A place in a hook's context, or in a body.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// Of which question.
    index: usize,
    /// A JSON pointer.
    pointer: &'a str,
}

impl Place<'_> {
    /// Changes what stands there; what would be no context any more stays.
    fn change(self, questions: &mut Questions, change: impl FnOnce(&mut Value)) {
        let Some(question) = questions.get_mut(self.index) else {
            return;
        };
        let Some(mut document) = document_of(question) else {
            return;
        };
        let Some(value) = document.pointer_mut(self.pointer) else {
            return;
        };
        change(value);
        if let Question::Hook(_, context) = &mut question.question {
            if let Ok(changed) = serde_json::from_value(document) {
                *context.to_mut() = changed;
            }
        } else if let Some(chunk) = chunk_mut(question) {
            chunk.data = document.to_string().into_bytes();
        }
    }
}

fn without_parameter(uri: &str, at: usize) -> Option<String> {
    let (path, query) = uri.split_once('?')?;
    let mut parameters: Vec<&str> = query.split('&').collect();
    (at < parameters.len()).then(|| parameters.remove(at))?;
    Some(match parameters.as_slice() {
        [] => path.to_owned(),
        left => format!("{path}?{}", left.join("&")),
    })
}

fn without_segment(uri: &str, at: usize) -> Option<String> {
    let (path, query) = uri.split_at(uri.find('?').unwrap_or(uri.len()));
    let mut segments: Vec<&str> = path.split('/').collect();
    (path.starts_with('/') && at < segments.len()).then(|| segments.remove(at))?;
    Some(match segments.join("/").as_str() {
        "" => format!("/{query}"),
        path => format!("{path}{query}"),
    })
}

/// Bytes of the inputs.
fn size_of(questions: &[Asked]) -> usize {
    let mut size = 0;
    let mut json = Vec::new();
    for question in questions {
        json.clear();
        write_input(&question.question, HeaderNames::AsWritten, &mut json);
        size += json.len();
    }
    size
}

struct Search<F, G> {
    framing: Framing,
    left: Questions,
    /// Bytes of what is left.
    size: usize,
    shows: F,
    may_go_on: G,
    trials: usize,
    /// Bytes of all trials.
    bytes: usize,
    progress: bool,
}

impl<F: Fn(&[Asked]) -> bool, G: Fn() -> bool> Search<F, G> {
    /// Whether all trials are used up. Every loop asks, since what a trial takes
    /// away from may be long.
    fn is_over(&self) -> bool {
        self.trials >= MAX_TRIALS || self.bytes >= MAX_BYTES || !(self.may_go_on)()
    }

    /// Keeps a change that still shows.
    fn attempt(&mut self, change: impl FnOnce(&mut Questions)) -> bool {
        if self.is_over() {
            return false;
        }
        let mut smaller = self.left.clone();
        change(&mut smaller);
        self.framing.put(&mut smaller);
        self.trials += 1;
        self.bytes = self.bytes.saturating_add(self.size);
        let shows = smaller != self.left && !smaller.is_empty() && (self.shows)(&smaller);
        if shows {
            self.size = size_of(&smaller);
            self.left = smaller;
            self.progress = true;
        }
        shows
    }

    /// Takes away ranges of a list of this length, many at once first, for the
    /// many that never matter.
    fn by_halves(&mut self, mut length: usize, cut: impl Fn(&mut Questions, Range<usize>)) {
        let mut size = length;
        while size > 0 && !self.is_over() {
            let mut at = 0;
            while at < length && !self.is_over() {
                let range = at..(at + size).min(length);
                if self.attempt(|questions| cut(questions, range.clone())) {
                    length -= range.len();
                } else {
                    at = range.end;
                }
            }
            size /= 2;
        }
    }

    fn round(&mut self) {
        for index in (0..self.left.len()).rev() {
            self.attempt(|questions| {
                questions.remove(index);
            });
        }
        self.headers(Heads::request_headers);
        self.headers(Heads::response_headers);
        self.uri_parts(0, without_parameter);
        // The path begins with an empty segment.
        self.uri_parts(1, without_segment);
        for index in 0..self.left.len() {
            self.document(index);
            self.body(index);
        }
    }

    fn document(&mut self, index: usize) {
        let question = self.left.get(index).filter(|_| !self.is_over());
        let Some(context) = question.and_then(document_of) else {
            return;
        };
        if question.is_some_and(|question| chunk_of(question).is_some()) {
            return self.within(Place { index, pointer: "" }, &context);
        }
        for pointer in ["/user", "/tenant_id"] {
            let place = Place { index, pointer };
            if context.pointer(pointer).is_some() {
                self.attempt(|questions| place.change(questions, |value| *value = Value::Null));
            }
        }
        for pointer in ["/headers", "/input", "/data"] {
            if let Some(value) = context.pointer(pointer) {
                self.within(Place { index, pointer }, value);
            }
        }
    }

    fn headers(&mut self, of: fn(&mut Heads) -> Option<&mut Headers>) {
        let length = of(&mut Heads::of(&self.left)).map_or(0, |headers| headers.len());
        self.by_halves(length, |questions, range| {
            let mut heads = Heads::of(questions);
            if let Some(headers) = of(&mut heads) {
                *headers = headers.without(&range);
            }
            heads.put(questions);
        });
    }

    fn uri(&self) -> Option<String> {
        Heads::of(&self.left).request.map(|head| head.uri.clone())
    }

    fn set_uri(&mut self, uri: String) -> bool {
        if self.uri().is_none_or(|now| now == uri) {
            return false;
        }
        self.attempt(|questions| {
            let mut heads = Heads::of(questions);
            if let Some(head) = &mut heads.request {
                Arc::make_mut(head).uri = uri;
            }
            heads.put(questions);
        })
    }

    /// Takes away parts of the path with query, from this one on.
    fn uri_parts(&mut self, first: usize, without: fn(&str, usize) -> Option<String>) {
        let mut at = first;
        while !self.is_over()
            && let Some(smaller) = self.uri().and_then(|uri| without(&uri, at))
        {
            if !self.set_uri(smaller) {
                at += 1;
            }
        }
    }

    fn body(&mut self, index: usize) {
        let chunk = self.left.get(index).and_then(chunk_of);
        let length = chunk.map_or(0, |chunk| chunk.data.len());
        self.by_halves(length, |questions, range| {
            if let Some(chunk) = questions.get_mut(index).and_then(chunk_mut) {
                chunk.data.drain(range);
            }
        });
    }

    /// Takes away from the value at a place, but not all of it.
    fn within(&mut self, place: Place<'_>, value: &Value) {
        let Place { index, pointer } = place;
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    if self.is_over() {
                        return;
                    }
                    let gone = self.attempt(|questions| {
                        place.change(questions, |value| {
                            if let Value::Object(map) = value {
                                map.shift_remove(key);
                            }
                        });
                    });
                    if !gone {
                        let step = key.replace('~', "~0").replace('/', "~1");
                        let pointer = &format!("{pointer}/{step}");
                        self.within(Place { index, pointer }, value);
                    }
                }
            }
            Value::Array(list) => {
                for (at, value) in list.iter().enumerate().rev() {
                    if self.is_over() {
                        return;
                    }
                    let gone = self.attempt(|questions| {
                        place.change(questions, |value| {
                            if let Value::Array(list) = value {
                                list.remove(at);
                            }
                        });
                    });
                    if !gone {
                        let pointer = &format!("{pointer}/{at}");
                        self.within(Place { index, pointer }, value);
                    }
                }
            }
            Value::String(text) => self.shorten(place, text),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn shorten(&mut self, place: Place<'_>, text: &str) {
        self.by_halves(text.chars().count(), |questions, range| {
            place.change(questions, |value| {
                let letters = value.as_str().into_iter().flat_map(str::chars);
                let letters = letters.enumerate();
                let kept = letters.filter(|(at, _)| !range.contains(at));
                *value = kept.map(|(_, letter)| letter).collect::<String>().into();
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use serde_json::json;

    use super::*;
    use crate::event::{BodyChunk, RequestHead};
    use crate::hook::{Hook, HookContext};

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

    fn asked(events: Vec<Event>) -> Questions {
        let questions = events.into_iter().map(Question::from);
        questions.map(Timed::from).collect()
    }

    fn smallest(shows: impl Fn(&[Event]) -> bool) -> Vec<Event> {
        let inputs = asked(request());
        let events = |inputs: &[Asked]| -> Vec<Event> {
            inputs
                .iter()
                .filter_map(|input| input.question.event().cloned())
                .collect()
        };
        let Minimized::To(left) = minimize(&inputs, |inputs| shows(&events(inputs)), || true)
        else {
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
        let inputs = asked(request());
        assert!(matches!(
            minimize(&inputs, |_| false, || true),
            Minimized::NotReproduced
        ));
    }

    /// A search that read a long list again for each element would not end here.
    #[test]
    fn nothing_is_read_once_the_trials_are_used_up() {
        let list: Vec<usize> = (0..100_000).collect();
        let uri = format!("/{}", "a/".repeat(30_000));
        let context: HookContext = serde_json::from_value(json!({
            "input": {"list": list}, "headers": {"a": "1"},
        }))
        .unwrap();
        let head = RequestHead {
            uri,
            ..RequestHead::default()
        };
        let questions = vec![
            Question::from(Event::RequestHeaders(head)).into(),
            Question::Hook(Hook::Before, Cow::Owned(context)).into(),
        ];
        for (trials, bytes, may_go_on) in [
            (MAX_TRIALS, 0, true),
            (MAX_TRIALS - 12, 0, true),
            (0, MAX_BYTES, true),
            (0, 0, false),
        ] {
            let began = std::time::Instant::now();
            let mut search = Search {
                left: questions.clone(),
                framing: Framing::of(&questions),
                size: 1,
                shows: |_: &[Asked]| false,
                may_go_on: || may_go_on,
                trials,
                bytes,
                progress: false,
            };
            let context = document_of(&questions[1]).unwrap();
            let input = Place {
                index: 1,
                pointer: "/input",
            };
            search.within(input, context.pointer("/input").unwrap());
            search.round();
            assert!(search.left == questions && search.is_over() && !search.progress);
            assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
        }
    }

    /// A large transaction gets fewer trials, and what was found until then counts.
    #[test]
    fn trials_are_bounded_by_what_they_cost() {
        let mut event = request().remove(1);
        if let Event::RequestBody { chunk, .. } = &mut event {
            chunk.data = vec![b'a'; 4 << 20];
        }
        let questions = asked(vec![event]);
        let trials = std::cell::Cell::new(0_usize);
        let is_whole = |questions: &[Asked]| {
            trials.set(trials.get() + 1);
            questions
                .iter()
                .filter_map(chunk_of)
                .any(|chunk| chunk.data.len() == 4 << 20)
        };
        minimize(&questions, is_whole, || true);
        assert!(trials.get() <= MAX_BYTES / (4 << 20) + 2, "{trials:?}");
        trials.set(0);
        let Minimized::To(left) = minimize(&questions, is_whole, || trials.get() < 8) else {
            panic!("smaller");
        };
        assert_eq!(trials.get(), 8);
        assert!(size_of(&left) < size_of(&questions));
    }

    /// An empty key with an empty value is nothing that bytes can be taken from
    /// one by one.
    #[test]
    fn only_what_matters_of_a_body_of_json_is_left() {
        let mut event = request().remove(1);
        if let Event::RequestBody { chunk, .. } = &mut event {
            chunk.data = br#"{"name": "x", "role": "admin", "n": [1, {"a": null}]}"#.to_vec();
        }
        let shows = |questions: &[Asked]| {
            let value = questions.iter().find_map(document_of);
            value.is_some_and(|value| value["role"] == "admin")
        };
        let Minimized::To(left) = minimize(&asked(vec![event]), shows, || true) else {
            panic!("smaller");
        };
        let chunk = chunk_of(&left[0]).unwrap();
        assert_eq!(chunk.data, br#"{"role":"admin"}"#);
    }

    #[test]
    fn only_what_matters_of_a_context_is_left() {
        let context: HookContext = serde_json::from_value(json!({
            "input": {"name": "Ada", "tags": ["a", "evil deed", "c"], "deep": {"x": 1, "y": 2}},
            "user": {"id": "7", "role": "user"},
            "headers": {"a": "1"},
            "tenant_id": "acme",
        }))
        .unwrap();
        let inputs = [
            Question::Hook(Hook::Before, Cow::Owned(context.clone())).into(),
            Question::Hook(Hook::After, Cow::Owned(context)).into(),
        ];
        let shows = |inputs: &[Asked]| {
            inputs.iter().any(|input| {
                let Question::Hook(_, context) = &input.question else {
                    return false;
                };
                let tags = context.input.get("tags").map(Value::to_string);
                tags.is_some_and(|tags| tags.contains("evil")) && context.input.contains_key("deep")
            })
        };
        let Minimized::To(left) = minimize(&inputs, shows, || true) else {
            panic!("smaller");
        };
        let [
            Timed {
                question: Question::Hook(_, context),
                ..
            },
        ] = left.as_slice()
        else {
            panic!("{left:?}");
        };
        assert_eq!(
            serde_json::to_value(context.as_ref()).unwrap(),
            json!({
                "input": {"tags": ["evil"], "deep": {}},
                "data": null, "user": null, "headers": {}, "tenant_id": null,
            })
        );
    }
}
