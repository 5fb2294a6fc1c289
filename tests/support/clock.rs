//! Guests that decide by the wall clock alone.

use super::guests::EVENTS;

/// 2026-01-01T00:00:00Z in seconds: behind the time that fixed clocks begin at, and
/// before all real ones.
pub(crate) const NEW_YEAR: u64 = 1_767_225_600;

/// When a guest refuses.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refuses {
    /// From this second on, as after `exp` of a token.
    From(u64),
    /// Before this second, as before `nbf`.
    Before(u64),
    /// Outside 9 to 17 o'clock, UTC.
    OutsideOfficeHours,
}

impl Refuses {
    fn condition(self) -> String {
        match self {
            Self::From(second) => format!("(i64.ge_u (call $now) (i64.const {second}))"),
            Self::Before(second) => format!("(i64.lt_u (call $now) (i64.const {second}))"),
            Self::OutsideOfficeHours => "(i64.ge_u (i64.sub (i64.rem_u (call $now) \
                (i64.const 86400)) (i64.const 32400)) (i64.const 28800))"
                .to_owned(),
        }
    }

    /// Whether it refuses at this second.
    pub(crate) const fn at(self, second: u64) -> bool {
        match self {
            Self::From(first) => second >= first,
            Self::Before(first) => second < first,
            Self::OutsideOfficeHours => {
                let hour = second % 86_400 / 3_600;
                hour < 9 || hour >= 17
            }
        }
    }

    /// An agent module with all handlers.
    pub(crate) fn wat(self) -> String {
        let handlers = EVENTS.map(|event| format!("on_{event}"));
        self.module(
            &handlers,
            [r#"{"decision":"allow"}"#, r#"{"decision":"block"}"#],
        )
    }

    /// A hook module with both hooks.
    pub(crate) fn hook_wat(self) -> String {
        let handlers = ["before_hook", "after_hook"].map(str::to_owned);
        self.module(
            &handlers,
            [r#"{"ok":true}"#, r#"{"ok":false,"error":"no"}"#],
        )
    }

    fn module(self, handlers: &[String], [pass, refuse]: [&str; 2]) -> String {
        let packed = |at: usize, text: &str| (at << 32) | text.len();
        let quoted = |text: &str| text.replace('"', "\\22");
        let handlers: String = handlers
            .iter()
            .map(|name| {
                format!(
                    "(func (export \"{name}\") (param i32 i32) (result i64)\n\
                     (select (i64.const {}) (i64.const {}) {}))\n",
                    packed(1024, refuse),
                    packed(512, pass),
                    self.condition()
                )
            })
            .collect();
        format!(
            "(module\n\
             (import \"wasi_snapshot_preview1\" \"clock_time_get\"\n\
               (func $clock (param i32 i64 i32) (result i32)))\n\
             (memory (export \"memory\") 17)\n\
             (data (i32.const 512) \"{}\") (data (i32.const 1024) \"{}\")\n\
             (func $now (result i64)\n\
               (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 16)))\n\
               (i64.div_u (i64.load (i32.const 16)) (i64.const 1000000000)))\n\
             (func (export \"alloc\") (param i32) (result i32) (i32.const 65536))\n\
             (func (export \"dealloc\") (param i32 i32))\n{handlers})",
            quoted(pass),
            quoted(refuse)
        )
    }
}
