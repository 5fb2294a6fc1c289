//! Exchanges told apart: examples and limits.

use proptest::prelude::*;

use super::*;

pub(super) const WANTS: Wants = Wants {
    chunks: Chunks::Alone,
    request_bodies: true,
    response_bodies: true,
    operations: true,
    numbers: false,
    ends_unclear: true,
};

fn origin(connection: u64, affinity: Affinity) -> Origin {
    Origin {
        peer: Peer::Process(1),
        connection,
        affinity,
        heads_come: [true, true],
    }
}

/// A connection on which no head ever came.
fn headless() -> Origin {
    Origin {
        connection: 7,
        heads_come: [false, false],
        ..v1()
    }
}

fn v1() -> Origin {
    origin(1, Affinity::None)
}

pub(super) fn head(id: &str, uri: &str, length: Option<u64>) -> Event {
    let mut headers = Headers::new();
    if let Some(length) = length {
        headers.push("content-length", &length.to_string());
    }
    Event::RequestHeaders(RequestHead {
        correlation_id: id.into(),
        method: if length.is_some() { "POST" } else { "GET" }.into(),
        uri: uri.into(),
        headers,
        ..RequestHead::default()
    })
}

pub(super) fn chunk(id: &str, size: usize, is_last: bool) -> BodyChunk {
    BodyChunk {
        correlation_id: id.into(),
        is_last,
        transferred_bytes: size as u64,
        data: vec![b'x'; size],
        ..BodyChunk::default()
    }
}

fn body(id: &str, size: usize) -> Event {
    Event::RequestBody {
        chunk: chunk(id, size, true),
        request: None,
    }
}

pub(super) fn response(id: &str, status: u16) -> Event {
    Event::ResponseHeaders(ResponseHead {
        correlation_id: id.into(),
        status,
        ..ResponseHead::default()
    })
}

pub(super) fn response_body(id: &str) -> Event {
    Event::ResponseBody {
        chunk: chunk(id, 1, true),
        request: None,
        response: None,
    }
}

pub(super) fn set(name: &str) -> HeaderOp {
    HeaderOp::Set {
        name: name.into(),
        value: String::new(),
    }
}

fn exchanges() -> Exchanges {
    Exchanges::new(ExchangeLimits::default())
}

/// What one event was given: the URI of its request, its response's status and
/// all else.
pub(super) struct Given {
    pub(super) uri: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) joined: Joined,
}

fn give(exchanges: &Exchanges, origin: Origin, event: Event) -> Given {
    give_at(exchanges, Instant::now(), (origin, WANTS), event)
}

pub(super) fn give_at(
    exchanges: &Exchanges,
    now: Instant,
    (origin, wants): (Origin, Wants),
    event: Event,
) -> Given {
    let JoinedEvent { event, joined } = exchanges.arrive(
        Arrival {
            origin,
            wants,
            is_http1: true,
            now,
        },
        event,
    );
    let (request, response) = match event {
        Event::RequestBody { request, .. } => (request, None),
        Event::ResponseBody {
            request, response, ..
        } => (request, response),
        _ => (None, None),
    };
    Given {
        uri: request.map(|head| head.uri.clone()),
        status: response.map(|head| head.status),
        joined,
    }
}

fn problem(exchanges: &Exchanges, origin: Origin, event: Event) -> Option<Problem> {
    give(exchanges, origin, event).joined.problem
}

#[test]
fn a_body_event_gets_the_heads_of_its_exchange() {
    let known = exchanges();
    give(&known, v1(), head("a", "/a", None));
    give(&known, v1(), head("b", "/b", Some(1)));
    assert_eq!(give(&known, v1(), body("b", 1)).uri.as_deref(), Some("/b"));
    give(&known, v1(), response("a", 200));
    let given = give(&known, v1(), response_body("a"));
    assert_eq!(
        (given.uri.as_deref(), given.status),
        (Some("/a"), Some(200))
    );
    assert_eq!(
        problem(&known, v1(), response_body("a")),
        Some(Problem::HeadLost)
    );
    assert_eq!(problem(&known, v1(), body("c", 1)), Some(Problem::HeadLost));
}

#[test]
fn bodies_of_a_proxy_that_sends_no_heads_are_asked_without_one() {
    let known = exchanges();
    for event in [body("a", 1), response_body("a")] {
        assert_eq!(problem(&known, headless(), event.clone()), None);
        assert_eq!(problem(&known, v1(), event), Some(Problem::HeadLost));
    }
    // A head that came on another connection is known all the same.
    give(&known, v1(), head("x", "/x", Some(1)));
    let given = give(&known, headless(), body("x", 1));
    assert_eq!(given.uri.as_deref(), Some("/x"));
    // Another proxy's ids are no one's here.
    give(&known, v1(), head("y", "/y", Some(1)));
    let other = Origin {
        peer: Peer::Process(2),
        ..headless()
    };
    assert!(give(&known, other, body("y", 1)).uri.is_none());
}

/// The id is the client's choice: what one asks says nothing of another.
#[test]
fn a_body_is_never_judged_with_another_exchanges_head() {
    // Both announce bodies of one length: nothing tells them apart in v1.
    let known = exchanges();
    give(&known, v1(), head("x", "/strict", Some(4)));
    give(&known, v1(), head("x", "/other", Some(4)));
    assert_eq!(
        problem(&known, v1(), body("x", 4)),
        Some(Problem::Ambiguous)
    );
    assert_eq!(
        problem(&known, v1(), body("x", 4)),
        Some(Problem::Ambiguous)
    );
    // Both bodies came: what comes now is of neither.
    give(&known, v1(), head("x", "/third", Some(4)));
    // And both were refused, so this is the only one left.
    assert_eq!(known.counts().live, 1);
    assert_eq!(
        give(&known, v1(), body("x", 4)).uri.as_deref(),
        Some("/third")
    );

    // A head without a body is passed over, and so is one of another length.
    for other in [None, Some(5)] {
        let known = exchanges();
        give(&known, v1(), head("x", "/strict", Some(4)));
        give(&known, v1(), head("x", "/other", other));
        assert_eq!(
            give(&known, v1(), body("x", 4)).uri.as_deref(),
            Some("/strict")
        );
    }

    // A length that nobody announced tells nothing.
    let known = exchanges();
    give(&known, v1(), head("x", "/only", Some(9)));
    assert_eq!(
        give(&known, v1(), body("x", 4)).uri.as_deref(),
        Some("/only")
    );

    // Heads that say the same need not be told apart.
    let known = exchanges();
    for _ in 0..3 {
        give(&known, v1(), head("x", "/same", Some(4)));
    }
    for _ in 0..3 {
        assert_eq!(
            give(&known, v1(), body("x", 4)).uri.as_deref(),
            Some("/same")
        );
    }
}

/// Released proxies send a body where they sent the last head with its id, so
/// it is judged with each head that it may belong to.
#[test]
fn a_connection_tells_exchanges_apart_only_where_the_proxy_keeps_to_it() {
    for (affinity, others) in [(Affinity::Kept, 0), (Affinity::LastHead, 1)] {
        let known = exchanges();
        give(&known, origin(1, affinity), head("x", "/one", Some(4)));
        give(&known, origin(2, affinity), head("x", "/two", Some(4)));
        let given = give(&known, origin(2, affinity), body("x", 4));
        assert_eq!(given.joined.problem, None);
        assert_eq!(given.uri.as_deref(), Some("/two"));
        let heads: Vec<_> = given
            .joined
            .other_heads
            .iter()
            .map(|head| head.uri.as_str())
            .collect();
        assert_eq!(heads, ["/one"][..others].to_vec());
        // Two on one connection cannot be told apart in any case.
        let known = exchanges();
        for uri in ["/one", "/two"] {
            give(&known, origin(1, affinity), head("x", uri, Some(4)));
        }
        assert_eq!(
            problem(&known, origin(1, affinity), body("x", 4)),
            Some(Problem::Ambiguous)
        );
    }
}

#[test]
fn which_of_two_was_judged_stays_open_until_both_bodies_came() {
    let known = exchanges();
    let (one, two) = (origin(1, Affinity::LastHead), origin(2, Affinity::LastHead));
    give(&known, one, head("x", "/one", Some(4)));
    give(&known, two, head("x", "/two", Some(4)));
    for _ in 0..2 {
        let given = give(&known, two, body("x", 4));
        assert_eq!(given.joined.other_heads.len(), 1);
    }
    assert_eq!(problem(&known, two, body("x", 4)), Some(Problem::HeadLost));
}

#[test]
fn a_refused_exchange_is_over() {
    let known = exchanges();
    let blocked = give(&known, v1(), head("x", "/blocked", Some(4)));
    known.refused(blocked.joined.place, &head("x", "/blocked", Some(4)), false);
    give(&known, v1(), head("x", "/good", Some(4)));
    assert_eq!(
        give(&known, v1(), body("x", 4)).uri.as_deref(),
        Some("/good")
    );
    // A proxy that did not wait for the refusal sends its body all the same.
    let given = give(&known, v1(), body("x", 4));
    assert_eq!(given.uri.as_deref(), Some("/good"));
    assert_eq!(given.joined.other_heads[0].uri, "/blocked");
}

#[test]
fn operations_go_out_with_their_own_response_or_not_at_all() {
    let known = exchanges();
    let first = give(&known, v1(), head("x", "/a", None));
    known.answered(first.joined.place, vec![set("cookie-of-a")]);
    assert_eq!(
        give(&known, v1(), response("x", 200)).joined.operations,
        [set("cookie-of-a")]
    );
    assert!(
        give(&known, v1(), response("x", 200))
            .joined
            .operations
            .is_empty()
    );

    // Another exchange of the id is open: nobody knows whose response it is.
    for operations in [vec![], vec![set("cookie-of-b")]] {
        let known = exchanges();
        let first = give(&known, v1(), head("x", "/a", None));
        known.answered(first.joined.place, vec![set("cookie-of-a")]);
        let second = give(&known, v1(), head("x", "/b", None));
        known.answered(second.joined.place, operations);
        for _ in 0..2 {
            assert!(
                give(&known, v1(), response("x", 200))
                    .joined
                    .operations
                    .is_empty()
            );
        }
        assert!(known.counts().operations_left_out > 0);
    }

    // The second is not answered yet, so what it will ask for is not known.
    let known = exchanges();
    for _ in 0..2 {
        let first = give(&known, v1(), head("x", "/a", None));
        known.answered(first.joined.place, vec![set("same")]);
    }
    give(&known, v1(), head("x", "/a", None));
    assert!(
        give(&known, v1(), response("x", 200))
            .joined
            .operations
            .is_empty()
    );
}

#[test]
fn responses_that_cannot_be_told_apart_are_said_to_be() {
    let known = exchanges();
    for uri in ["/a", "/b"] {
        give(&known, v1(), head("x", uri, None));
    }
    give(&known, v1(), response("x", 200));
    assert_eq!(
        problem(&known, v1(), response_body("x")),
        Some(Problem::Ambiguous)
    );
    give(&known, v1(), response("x", 404));
    assert_eq!(
        problem(&known, v1(), response_body("x")),
        Some(Problem::Ambiguous)
    );
    // All that could be meant is over.
    give(&known, v1(), head("x", "/c", None));
    give(&known, v1(), response("x", 200));
    assert_eq!(
        give(&known, v1(), response_body("x")).uri.as_deref(),
        Some("/c")
    );
    assert_eq!(known.counts().live, 0);
}

/// An upstream may answer before it has the body: the body is still its own.
#[test]
fn a_body_that_comes_behind_its_response_is_not_anothers() {
    let known = exchanges();
    give(&known, v1(), head("x", "/early", Some(4)));
    give(&known, v1(), response("x", 200));
    assert_eq!(
        give(&known, v1(), body("x", 4)).uri.as_deref(),
        Some("/early")
    );
    give(&known, v1(), head("y", "/early", Some(4)));
    give(&known, v1(), response("y", 200));
    give(&known, v1(), head("y", "/next", Some(4)));
    for _ in 0..2 {
        // As a rule it is of the one that waits for its response.
        let given = give(&known, v1(), body("y", 4));
        assert_eq!(given.uri.as_deref(), Some("/next"));
        assert_eq!(given.joined.other_heads.len(), 1);
    }
}

/// Whose secrets are in it is not known, so it is not recorded.
#[test]
fn a_response_without_its_request_is_unclear_where_requests_come() {
    let known = exchanges();
    let is_unclear = |origin| give(&known, origin, response("x", 200)).joined.is_unclear;
    assert!(is_unclear(v1()));
    assert!(!is_unclear(headless()));
    let given = give(&known, v1(), head("y", "/y", None));
    assert!(!given.joined.is_unclear);
    assert!(!give(&known, v1(), response("y", 200)).joined.is_unclear);
}

/// What is lost is known to be lost: another exchange with the id is not it.
#[test]
fn a_forgotten_exchange_is_not_taken_for_another() {
    let known = Exchanges::new(ExchangeLimits {
        max_exchanges: 10,
        ..ExchangeLimits::default()
    });
    give(&known, v1(), head("mine", "/strict", Some(4)));
    for number in 0..20 {
        give(&known, v1(), head(&number.to_string(), "/", Some(4)));
    }
    assert_eq!(
        problem(&known, v1(), body("mine", 4)),
        Some(Problem::HeadLost)
    );
    give(&known, v1(), head("mine", "/other", Some(4)));
    assert_eq!(
        problem(&known, v1(), body("mine", 4)),
        Some(Problem::Ambiguous)
    );
    // A body of another length cannot be the forgotten one's.
    give(&known, v1(), head("mine", "/long", Some(9)));
    assert_eq!(
        give(&known, v1(), body("mine", 9)).uri.as_deref(),
        Some("/long")
    );
    assert_eq!(known.counts().live, 10);
}

#[test]
fn heads_that_announce_no_body_go_first() {
    let known = Exchanges::new(ExchangeLimits {
        max_exchanges: 10,
        ..ExchangeLimits::default()
    });
    give(&known, v1(), head("upload", "/strict", Some(4)));
    for number in 0..1000 {
        give(&known, v1(), head(&number.to_string(), "/", None));
    }
    assert_eq!(
        give(&known, v1(), body("upload", 4)).uri.as_deref(),
        Some("/strict")
    );
    let inner = lock(&known.inner);
    assert!(inner.queues.iter().all(|queue| queue.len() <= 2 * 64 + 1));
}

#[test]
fn an_exchange_is_forgotten_after_its_time() {
    let known = exchanges();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    give_at(&known, at(0), (v1(), WANTS), head("a", "/a", Some(4)));
    give_at(&known, at(200), (v1(), WANTS), head("b", "/b", Some(4)));
    give_at(&known, at(301), (v1(), WANTS), head("c", "/c", Some(4)));
    assert_eq!(problem(&known, v1(), body("a", 4)), Some(Problem::HeadLost));
    assert_eq!(give(&known, v1(), body("b", 4)).uri.as_deref(), Some("/b"));
    assert_eq!(known.counts().forgotten, 1);
}

#[test]
fn memory_is_bounded_by_bytes_and_by_exchanges_of_one_id() {
    let known = Exchanges::new(ExchangeLimits {
        max_bytes: 100_000,
        ..ExchangeLimits::default()
    });
    for number in 0..1_000 {
        give(
            &known,
            v1(),
            head(&number.to_string(), &"x".repeat(1_000), None),
        );
        assert!(lock(&known.inner).bytes <= 100_000);
    }
    assert!(give(&known, v1(), body("999", 1)).uri.is_some());
    let known = exchanges();
    for number in 0..1_000 {
        give(
            &known,
            v1(),
            head("one", &format!("/{number}"), Some(number)),
        );
    }
    assert_eq!(known.counts().live, 64);
    assert_eq!(
        problem(&known, v1(), body("one", 999)),
        Some(Problem::Ambiguous)
    );
    assert_eq!(
        problem(&known, v1(), body("one", 1)),
        Some(Problem::Ambiguous)
    );
    for _ in 0..1_000 {
        give(&known, v1(), response("one", 200));
    }
    let inner = lock(&known.inner);
    assert_eq!(
        inner.bytes,
        inner.groups.values().map(Group::bytes).sum::<usize>()
    );
}

#[test]
fn what_a_head_announces() {
    let announced = |fields: &[(&str, &str)], is_http1| {
        let head = RequestHead {
            method: "GET".into(),
            headers: fields.iter().copied().collect(),
            ..RequestHead::default()
        };
        Announced::of(&head, is_http1)
    };
    assert_eq!(announced(&[], true), Announced::Nothing);
    assert_eq!(announced(&[], false), Announced::Perhaps);
    let post = RequestHead {
        method: "POST".into(),
        ..RequestHead::default()
    };
    assert_eq!(Announced::of(&post, true), Announced::Any);
    assert_eq!(
        announced(&[("Content-Length", "0")], true),
        Announced::Nothing
    );
    assert_eq!(
        announced(&[("content-length", "7")], true),
        Announced::Bytes(7)
    );
    assert_eq!(
        announced(&[("content-length", "7")], false),
        Announced::Bytes(7)
    );
    for odd in ["", "-1", "7, 7", "99999999999999999999", "x"] {
        assert_eq!(
            announced(&[("content-length", odd)], true),
            Announced::Any,
            "{odd}"
        );
    }
    let twice = [("content-length", "7"), ("content-length", "7")];
    assert_eq!(announced(&twice, true), Announced::Any);
    for name in ["transfer-encoding", "content-encoding", "upgrade"] {
        let both = [("content-length", "7"), (name, "x")];
        assert_eq!(announced(&both, true), Announced::Any);
    }
}

proptest! {
    /// Nobody can tell that a head was packed in between.
    #[test]
    fn a_head_comes_back_as_it_went(
        line in any::<[String; 3]>(),
        status in any::<u16>(),
        headers in prop::collection::vec(any::<(String, String)>(), 0..5),
    ) {
        let [method, uri, client_ip] = line;
        let correlation_id = "a".to_owned();
        let request = RequestHead {
            correlation_id: correlation_id.clone(), method, uri, client_ip, headers: headers.iter().cloned().collect(),
        };
        let response = ResponseHead { correlation_id, status, headers: headers.into_iter().collect() };
        let known = exchanges();
        let arrive = |event| {
            let arrival = Arrival { origin: v1(), wants: WANTS, is_http1: false, now: Instant::now() };
            known.arrive(arrival, event).event
        };
        arrive(Event::RequestHeaders(request.clone()));
        arrive(Event::ResponseHeaders(response.clone()));
        for is_last in [false, true] {
            let event = arrive(Event::ResponseBody { chunk: chunk("a", 1, is_last), request: None, response: None });
            let Event::ResponseBody { request: known, response: answered, .. } = event else {
                panic!("another event")
            };
            prop_assert_eq!(known.as_deref(), Some(&request));
            prop_assert_eq!(answered.as_deref(), Some(&response));
        }
    }
}
