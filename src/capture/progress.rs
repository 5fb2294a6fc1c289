//! Which record can follow which within one exchange.
//!
//! An id alone does not say where an exchange ends: clients send one id with
//! many requests, and a recording leaves out the events that the module has no
//! handler for, request heads too. What cannot follow in the same exchange
//! begins another one.

/// Which part of its exchange a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    RequestHead,
    RequestBody(Chunk),
    ResponseHead,
    ResponseBody(Chunk),
    BeforeHook,
    AfterHook,
}

/// A piece of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Its position, where the format counts them.
    pub(super) index: Option<u32>,
    pub(super) is_last: bool,
}

impl Part {
    /// Whether an exchange begins with it, whatever came before.
    pub(super) const fn is_first(self) -> bool {
        matches!(self, Self::RequestHead | Self::BeforeHook)
    }
}

/// How far an exchange has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The sides run at the same time: an upstream may answer before it has
    /// the whole request.
    request: Side,
    response: Side,
    is_hooks: bool,
    is_over: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Side {
    #[default]
    NotBegun,
    /// The index of the next chunk.
    Next(u32),
    Ended,
}

impl Progress {
    /// Whether the part can come next in this exchange.
    pub(super) fn allows(self, part: Part) -> bool {
        let is_response_new = self.response == Side::NotBegun;
        match part {
            _ if self.is_over => false,
            Part::RequestHead | Part::BeforeHook => false,
            Part::AfterHook => self.is_hooks && is_response_new,
            _ if self.is_hooks => false,
            // Without anything of the request before it, it is the first part.
            Part::RequestBody(chunk) => {
                self.request != Side::NotBegun && self.request.allows(chunk)
            }
            Part::ResponseHead => is_response_new,
            Part::ResponseBody(chunk) => self.response.allows(chunk),
        }
    }

    /// Whether something of the part's side came before.
    pub(super) fn has_begun(self, part: Part) -> bool {
        let side = match part {
            Part::RequestHead | Part::RequestBody(_) | Part::BeforeHook => self.request,
            Part::ResponseHead | Part::ResponseBody(_) | Part::AfterHook => self.response,
        };
        side != Side::NotBegun
    }

    /// Goes on with this part, which may be the last in any case.
    pub(super) fn advance(&mut self, part: Part, is_last: bool) {
        self.is_over |= is_last;
        match part {
            Part::RequestHead => self.request = Side::Next(0),
            Part::RequestBody(chunk) => self.request = self.request.after(chunk),
            Part::ResponseHead => self.response = Side::Next(0),
            Part::ResponseBody(chunk) => {
                self.response = self.response.after(chunk);
                self.is_over |= chunk.is_last;
            }
            Part::BeforeHook => self.is_hooks = true,
            Part::AfterHook => (self.is_hooks, self.is_over) = (true, true),
        }
    }

    /// Nothing follows any more.
    pub(super) const fn end(&mut self) {
        self.is_over = true;
    }

    pub(super) const fn is_over(self) -> bool {
        self.is_over
    }
}

impl Side {
    fn allows(self, chunk: Chunk) -> bool {
        let next = match self {
            Self::NotBegun => 0,
            Self::Next(next) => next,
            Self::Ended => return false,
        };
        chunk.index.is_none_or(|index| index == next)
    }

    fn after(self, chunk: Chunk) -> Self {
        if chunk.is_last {
            return Self::Ended;
        }
        match (chunk.index, self) {
            (Some(index), _) => Self::Next(index.saturating_add(1)),
            (None, Self::Next(next)) => Self::Next(next),
            (None, _) => Self::Next(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn chunk(index: u32, is_last: bool) -> Chunk {
        let index = Some(index);
        Chunk { index, is_last }
    }

    /// How many exchanges these parts are, in this order.
    fn exchanges(parts: &[Part]) -> usize {
        let mut begun = 0;
        let mut progress = Progress::default();
        for part in parts {
            if begun == 0 || !progress.allows(*part) {
                begun += 1;
                progress = Progress::default();
            }
            progress.advance(*part, false);
        }
        begun
    }

    #[test]
    fn what_cannot_follow_begins_another_exchange() {
        use Part::{AfterHook, BeforeHook, RequestBody, RequestHead, ResponseBody, ResponseHead};
        let (first, next, last) = (chunk(0, false), chunk(1, false), chunk(1, true));
        for (parts, expected) in [
            (&[RequestHead, RequestHead][..], 2),
            (&[ResponseHead, ResponseHead, ResponseHead], 3),
            (&[RequestHead, ResponseHead, ResponseHead], 2),
            (&[RequestBody(first), RequestBody(first)], 2),
            (&[RequestBody(first), RequestBody(next)], 1),
            (&[RequestBody(next), RequestBody(first)], 2),
            (&[RequestBody(first), RequestBody(chunk(2, false))], 2),
            (&[RequestHead, RequestBody(next)], 2),
            (&[RequestHead, RequestBody(first), RequestBody(last)], 1),
            (&[RequestBody(last), RequestBody(chunk(2, false))], 2),
            // The upstream answers before it has the whole request.
            (
                &[
                    RequestHead,
                    RequestBody(first),
                    ResponseHead,
                    RequestBody(last),
                    ResponseBody(first),
                ],
                1,
            ),
            (&[RequestHead, ResponseHead, RequestBody(first)], 1),
            (&[ResponseHead, RequestBody(first)], 2),
            (&[RequestHead, ResponseBody(first), ResponseHead], 2),
            (&[RequestHead, ResponseBody(first)], 1),
            (&[ResponseHead, ResponseBody(next)], 2),
            (&[ResponseHead, ResponseBody(first), ResponseBody(first)], 2),
            (&[ResponseBody(chunk(0, true)), ResponseHead], 2),
            (
                &[
                    RequestHead,
                    ResponseHead,
                    ResponseBody(chunk(0, true)),
                    RequestBody(first),
                ],
                2,
            ),
            (&[BeforeHook, AfterHook], 1),
            (&[BeforeHook, BeforeHook], 2),
            (&[AfterHook, AfterHook], 2),
            (&[BeforeHook, AfterHook, AfterHook], 2),
            (&[BeforeHook, ResponseHead], 2),
            (&[RequestHead, AfterHook], 2),
        ] {
            assert_eq!(exchanges(parts), expected, "{parts:?}");
        }
    }

    /// A format that does not count chunks.
    #[test]
    fn chunks_without_a_number_follow_each_other() {
        let uncounted = |is_last| Chunk {
            index: None,
            is_last,
        };
        let parts = [
            Part::RequestHead,
            Part::RequestBody(uncounted(false)),
            Part::RequestBody(uncounted(true)),
            Part::ResponseHead,
            Part::ResponseBody(uncounted(false)),
            Part::ResponseBody(uncounted(true)),
        ];
        assert_eq!(exchanges(&parts), 1);
        assert_eq!(exchanges(&[&parts[..], &parts[4..]].concat()), 2);
    }
}
