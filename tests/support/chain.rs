//! Whole replays, drawn at random, and what is right for each: it reads the rules
//! itself and calls nothing of the program.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::rules::{self, Act, HOOKS, PHASES, Rules, Transaction};

/// One line of a capture.
#[derive(Debug, Clone)]
enum Line {
    Call {
        id: String,
        phase: &'static str,
        input: Value,
        output: Option<Value>,
        /// Spelled otherwise than production does.
        is_respelled: bool,
    },
    /// Nothing that can be asked about.
    Broken(&'static str),
}

/// A replay.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) is_hooks: bool,
    pub(crate) old: Option<Rules>,
    pub(crate) new: Rules,
    /// What answered when it was recorded.
    pub(crate) past: Rules,
    lines: Vec<Line>,
    pub(crate) flags: Flags,
}

#[derive(Debug, Clone)]
pub(crate) struct Flags {
    pub(crate) is_open: bool,
    pub(crate) is_fresh: bool,
    pub(crate) expects_old: bool,
    pub(crate) saves_all: bool,
    pub(crate) minimizes: bool,
    pub(crate) is_strict: bool,
    pub(crate) ignore: Vec<&'static str>,
    pub(crate) shards: u32,
    pub(crate) examples: usize,
    /// Which `--fail-on` each format is tried with.
    pub(crate) judged: usize,
    /// Of `--fail-on N%`.
    pub(crate) percent: u32,
}

const IGNORED: [&str; 20] = [
    "/audit/tags",
    "/audit/tags/0",
    "/audit/tags/1",
    "/audit/rule_ids",
    "/audit/reason_codes",
    "/audit",
    "/decision",
    "/decision/block/status",
    "/decision/block/body",
    "/request_headers",
    "/request_headers/0/set/name",
    "/response_headers/0",
    "/response_headers/1",
    "2/audit/tags",
    "2/decision",
    "1/decision",
    "2/audit",
    "/nowhere",
    "/audit/tags/00",
    "3/needs_more",
];

const IGNORED_OF_HOOKS: [&str; 8] = [
    "/ok",
    "/error",
    "/ctx",
    "/ctx/input/n",
    "/ctx/data",
    "/details",
    "2/ok",
    "/nowhere",
];

const BROKEN: [&str; 4] = [
    r#"{"v":1}"#,
    "no JSON",
    r#"{"v":2,"id":"u1","phase":"response_headers","input":{"status":200,"correlation_id":"u1","headers":{}}}"#,
    r#"{"v":1,"id":"u2","phase":"nonsense","input":{}}"#,
];
/// A record of the other ABI.
const OF_HOOKS: &str = r#"{"v":1,"id":"u3","phase":"before_hook","ts":null,"module":null,"input":{"input":{},"data":null,"user":null,"headers":{},"tenant_id":null},"output":null,"error":null,"fuel":null,"wall_ns":null,"redacted":[]}"#;
const OF_EVENTS: &str = r#"{"v":1,"id":"u3","phase":"response_headers","ts":null,"module":null,"input":{"status":200,"correlation_id":"u3","headers":{}},"output":null,"error":null,"fuel":null,"wall_ns":null,"redacted":[]}"#;

fn flags(is_hooks: bool) -> impl Strategy<Value = Flags> {
    let ignored = if is_hooks {
        &IGNORED_OF_HOOKS[..]
    } else {
        &IGNORED[..]
    };
    let ignore = prop_oneof![
        3 => Just(Vec::new()),
        2 => prop::collection::vec(prop::sample::select(ignored), 1..4),
    ];
    let rarely = || prop::bool::weighted(0.1);
    let percents = vec![0, 10, 20, 25, 33, 50, 60, 75, 90, 100];
    (
        (any::<bool>(), any::<bool>(), any::<bool>(), rarely()),
        (rarely(), any::<bool>(), ignore, 2..=4_u32),
        (0..3_usize, prop::sample::select(percents), 0..5_usize),
    )
        .prop_map(
            move |(
                (is_open, is_fresh, expects_old, saves_all),
                (minimizes, is_strict, mut ignore, shards),
                (examples, percent, judged),
            )| {
                ignore.sort_unstable();
                ignore.dedup();
                Flags {
                    // A hook has no failure policy.
                    is_open: is_open && !is_hooks,
                    is_fresh,
                    expects_old,
                    saves_all,
                    minimizes,
                    is_strict,
                    ignore,
                    shards,
                    examples,
                    percent,
                    judged,
                }
            },
        )
}

/// The calls of one pair of hooks, or of one of them.
fn hook_calls() -> impl Strategy<Value = Transaction> {
    let inputs = vec![
        json!({"name": "Ada"}),
        json!({"name": "ada", "n": 2}),
        json!({"n": 3}),
    ];
    let users = vec![
        Value::Null,
        json!({"id": "7", "role": "admin"}),
        json!({"id": "8", "role": "user"}),
    ];
    let headers = vec![json!({}), json!({"x-a": "1"})];
    let tenants = vec![Value::Null, json!("acme")];
    let select = prop::sample::select::<Value>;
    (
        select(inputs),
        select(users),
        select(headers),
        select(tenants),
        1..4_u8,
    )
        .prop_map(|(input, user, headers, tenant, which)| {
            let context = |data: Value| {
                json!({"input": input, "data": data, "user": user, "headers": headers,
                    "tenant_id": tenant})
            };
            let before = ("before_hook", context(Value::Null));
            let after = ("after_hook", context(json!({"id": 7})));
            match which {
                1 => vec![before],
                2 => vec![after],
                _ => vec![before, after],
            }
        })
}

/// How traffic becomes a capture.
#[derive(Debug, Clone)]
struct Recording {
    /// Whose id each transaction has.
    ids: Vec<usize>,
    /// Phases that were not recorded.
    left_out: Vec<&'static str>,
    /// Of which calls the answers were recorded, in turn.
    recorded: Vec<bool>,
    /// Which of the exchanges that are going on comes next, in turn.
    turns: Vec<usize>,
    /// Lines that are spelled otherwise, or spoiled.
    odd: Vec<usize>,
    broken: Vec<(usize, &'static str)>,
}

const MOST: usize = 7;

fn recording(is_hooks: bool) -> impl Strategy<Value = Recording> {
    let phases = if is_hooks { &HOOKS[..] } else { &PHASES[..] };
    let other = if is_hooks { OF_EVENTS } else { OF_HOOKS };
    let broken = [&BROKEN[..], &[other]].concat();
    let recorded = prop_oneof![Just(vec![false]), Just(vec![true]),];
    let left_out = prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::sample::subsequence(phases, 1..phases.len()),
    ];
    let place = 0..MOST * 3;
    (
        Just((0..MOST).collect::<Vec<usize>>()),
        left_out,
        recorded,
        prop::collection::vec(prop_oneof![2 => Just(0), 1 => 0..MOST], 1..5),
        prop::collection::vec(place.clone(), 0..4),
        prop_oneof![
            2 => Just(Vec::new()),
            1 => prop::collection::vec((place, prop::sample::select(broken)), 1..3),
        ],
    )
        .prop_map(|(ids, left_out, recorded, turns, odd, broken)| Recording {
            ids,
            left_out,
            recorded,
            turns,
            odd,
            broken,
        })
}

/// Modules that know nothing of earlier calls, or one that does; then all
/// transactions have one id, and so one instance.
fn modules(is_hooks: bool) -> BoxedStrategy<(Rules, Rules, Rules)> {
    if is_hooks {
        return (rules::hooks(), rules::hooks(), rules::hooks()).boxed();
    }
    let pair = prop::bool::weighted(0.15).prop_flat_map(rules::pair);
    (pair, rules::rules(), 0..3_u8)
        .prop_map(|((old, new), past, which)| {
            let past = match which {
                0 => past,
                1 => old.clone(),
                _ if new.counts() => old.clone(),
                _ => new.clone(),
            };
            (old, new, past)
        })
        .boxed()
}

/// Whole replays.
pub(crate) fn cases(is_hooks: bool) -> impl Strategy<Value = Case> {
    let calls = if is_hooks {
        hook_calls().boxed()
    } else {
        rules::transaction("t".to_owned()).boxed()
    };
    let traffic = prop::collection::vec(calls, 0..=MOST);
    let gap = || prop::option::weighted(0.12, 0..3_usize);
    (
        modules(is_hooks),
        (gap(), any::<bool>()),
        traffic,
        recording(is_hooks),
        flags(is_hooks),
    )
        .prop_map(
            move |((old, new, mut past), gaps, mut traffic, recording, flags)| {
                let counts = new.counts();
                // A plugin without its first hook is none.
                if let Some(at) = gaps.0.filter(|_| !counts) {
                    past.0.remove(if is_hooks { 1 } else { at });
                }
                let mut flags = flags;
                flags.is_fresh &= !counts;
                let mut recording = recording;
                if counts {
                    recording.ids = vec![0; MOST];
                    // Of several exchanges of one id only heads are told apart surely.
                    traffic.iter_mut().for_each(|calls| calls.truncate(1));
                }
                Case {
                    lines: lines(
                        &traffic,
                        &recording,
                        &past,
                        (is_hooks, flags.is_open, flags.is_fresh),
                    ),
                    is_hooks,
                    old: gaps.1.then_some(old),
                    new,
                    past,
                    flags,
                }
            },
        )
}

/// The lines of a capture: of each id one transaction after the other.
fn lines(
    traffic: &[Transaction],
    recording: &Recording,
    past: &Rules,
    kind: (bool, bool, bool),
) -> Vec<Line> {
    let (is_hooks, ..) = kind;
    let mut marks = recording.recorded.iter().cycle();
    let was_asked = recording.recorded.contains(&true);
    let mut waiting: Vec<(usize, Vec<Line>)> = Vec::new();
    for (calls, &id) in traffic.iter().zip(&recording.ids) {
        let mut guest = Guest::new(past, kind);
        let mut lines = Vec::new();
        for (phase, input) in calls {
            if recording.left_out.contains(phase) {
                continue;
            }
            let mut input = input.clone();
            if !is_hooks {
                input["correlation_id"] = format!("t{id}").into();
            }
            let answered = guest.ask(phase, &input.to_string());
            let has_ended = was_asked && refuses(&answered.value);
            lines.push(Line::Call {
                id: format!("t{id}"),
                phase,
                input,
                output: Some(answered.value).filter(|_| *marks.next().unwrap()),
                is_respelled: false,
            });
            if has_ended {
                break;
            }
        }
        if !lines.is_empty() {
            lines.reverse();
            waiting.push((id, lines));
        }
    }
    let mut all = Vec::new();
    let mut turns = recording.turns.iter().cycle();
    while !waiting.is_empty() {
        let mut ids = BTreeSet::new();
        let next: Vec<usize> = (0..waiting.len())
            .filter(|at| ids.insert(waiting[*at].0))
            .collect();
        let at = next[turns.next().unwrap() % next.len()];
        all.extend(waiting[at].1.pop());
        waiting.retain(|(_, lines)| !lines.is_empty());
    }
    for at in &recording.odd {
        if let Some(Line::Call { is_respelled, .. }) = all.get_mut(*at) {
            *is_respelled = true;
        }
    }
    for (at, text) in &recording.broken {
        all.insert((*at).min(all.len()), Line::Broken(text));
    }
    all
}

impl Line {
    fn text(&self) -> String {
        let (id, phase, input, output, is_respelled) = match self {
            Self::Broken(text) => return (*text).to_owned(),
            Self::Call {
                id,
                phase,
                input,
                output,
                is_respelled,
            } => (id, phase, input, output, is_respelled),
        };
        let mut input = input.clone();
        let mut output = output.clone();
        if *is_respelled {
            reverse(&mut input);
            if let Some(output) = &mut output {
                respell(output);
            }
        }
        let line = json!({"v": 1, "id": id, "phase": phase, "ts": null, "module": null,
            "input": input, "output": output, "error": null, "fuel": null, "wall_ns": null,
            "redacted": []});
        if *is_respelled {
            return line
                .to_string()
                .replacen("\"input\":{", " \"input\" : { ", 1);
        }
        line.to_string()
    }
}

/// The keys of objects the other way round.
fn reverse(value: &mut Value) {
    if let Value::Object(map) = value {
        let turned = std::mem::take(map).into_iter().rev();
        *map = turned
            .map(|(name, mut value)| {
                reverse(&mut value);
                (name, value)
            })
            .collect();
    }
}

/// An answer that tells a proxy the same in other words.
fn respell(answer: &mut Value) {
    reverse(answer);
    if let Some(parts) = answer.as_object_mut() {
        parts.retain(|_, part| !part.is_null());
    }
    for list in ["request_headers", "response_headers"] {
        let Some(Value::Array(ops)) = answer.get_mut(list) else {
            continue;
        };
        for (_, op) in ops.iter_mut().flat_map(|op| op.as_object_mut().unwrap()) {
            let name = op["name"].as_str().unwrap().to_ascii_uppercase();
            op["name"] = name.into();
        }
    }
}

/// One instance after the other of a module.
struct Guest<'r> {
    rules: &'r Rules,
    is_hooks: bool,
    is_open: bool,
    is_fresh: bool,
    calls: u32,
    /// Instances that were lost before this one.
    lost: u32,
    /// How many were lost as the first chunk of each body came.
    first_asked: BTreeMap<String, u32>,
}

/// What a module answered to one call.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) value: Value,
    pub(crate) fault: Option<String>,
    /// Not where the module has no handler.
    pub(crate) is_called: bool,
}

impl<'r> Guest<'r> {
    const fn new(rules: &'r Rules, (is_hooks, is_open, is_fresh): (bool, bool, bool)) -> Self {
        Self {
            rules,
            is_hooks,
            is_open,
            is_fresh,
            calls: 0,
            lost: 0,
            first_asked: BTreeMap::new(),
        }
    }

    fn ask(&mut self, phase: &str, input: &str) -> Answered {
        let now = self.lost;
        let mut answered = self.asked(phase, input);
        let is_kept = !self.is_hooks && !self.is_fresh && answered.is_called;
        if is_kept && phase.ends_with("_body") {
            // The chunks of a body are for one instance.
            let first = *self.first_asked.entry(phase.to_owned()).or_insert(now);
            if let Some(tags) = answered.value["audit"]["tags"].as_array_mut()
                && first != now
            {
                tags.push(json!("instance-changed"));
            }
        }
        answered
    }

    fn asked(&mut self, phase: &str, input: &str) -> Answered {
        let unchanged = || if self.is_hooks { ok() } else { allow() };
        let handler = self.rules.0.iter().find(|(name, _)| *name == phase);
        let Some((_, handler)) = handler else {
            return Answered {
                value: unchanged(),
                fault: None,
                is_called: false,
            };
        };
        self.calls = if self.is_fresh { 1 } else { self.calls + 1 };
        let rule = handler
            .rules
            .iter()
            .find(|(needle, _)| input.contains(needle));
        let mut act = rule.map_or(&handler.default, |rule| &rule.1);
        while let Act::After(calls, first, then) = act {
            act = if self.calls > *calls { then } else { first };
        }
        let given = match act {
            Act::After(..) => unreachable!(),
            Act::Trap => {
                self.calls = 0;
                self.lost += 1;
                Err(("trap:unreachable", None))
            }
            Act::Answer(text) if self.is_hooks => hook_answer(text, input),
            Act::Answer(text) => event_answer(text),
        };
        match given {
            Ok(value) => Answered {
                value,
                fault: None,
                is_called: true,
            },
            Err((code, refusal)) => Answered {
                value: self.of_fault(code, refusal),
                fault: Some(code.to_owned()),
                is_called: true,
            },
        }
    }

    /// What a fault becomes.
    fn of_fault(&self, code: &str, refusal: Option<u64>) -> Value {
        if self.is_hooks {
            return json!({"ok": false, "ctx": null,
                "error": format!("WASM plugin trapped: {code}"), "details": null});
        }
        let (decision, tags) = match (self.is_open, refusal) {
            (false, _) => (
                json!({"block": {"status": 500, "body": "Wasm Error"}}),
                json!(["wasm-error"]),
            ),
            (true, None) => (json!("allow"), json!(["wasm-error", "fail-open"])),
            (true, Some(status)) => (
                json!({"block": {"status": status}}),
                json!(["wasm-error", "refusal-kept"]),
            ),
        };
        let mut answer = allow();
        answer["decision"] = decision;
        answer["audit"]["tags"] = tags;
        answer["audit"]["reason_codes"] = json!([code]);
        answer
    }

    /// The answers to some calls, up to the one that refuses.
    fn play(&mut self, steps: &[Step]) -> Vec<Answered> {
        let mut answers = Vec::new();
        self.first_asked.clear();
        for step in steps {
            let answered = self.ask(step.phase, &step.input);
            let has_ended = refuses(&answered.value);
            answers.push(answered);
            if has_ended {
                break;
            }
        }
        answers
    }
}

fn allow() -> Value {
    json!({"decision": "allow", "request_headers": [], "response_headers": [],
        "routing_metadata": {}, "audit": {"tags": [], "rule_ids": [], "reason_codes": []},
        "needs_more": false, "request_body_mutation": null, "response_body_mutation": null})
}

fn ok() -> Value {
    json!({"ok": true, "ctx": null, "error": null, "details": null})
}

/// What cannot be used, with the status of a refusal in it.
type Unusable = (&'static str, Option<u64>);

/// What docs/contract.md says of an answer to an event.
fn event_answer(text: &str) -> Result<Value, Unusable> {
    let mut answer = allow();
    if text.is_empty() {
        answer["audit"]["tags"] = json!(["empty-answer"]);
        return Ok(answer);
    }
    let given: Value = serde_json::from_str(text).unwrap();
    let status = given["status"].as_u64();
    let decision = given["decision"].as_str().unwrap().to_lowercase();
    answer["decision"] = match decision.as_str() {
        "allow" => json!("allow"),
        "block" | "deny" if given["tags"].is_number() => {
            return Err(("bad-answer:mistyped", Some(status.unwrap_or(403))));
        }
        "block" | "deny" => {
            let mut block = json!({"block": {"status": status.unwrap_or(403)}});
            if let Some(body) = given.get("body") {
                block["block"]["body"] = body.clone();
            }
            block
        }
        "redirect" => {
            json!({"redirect": {"url": given["body"], "status": status.unwrap_or(302)}})
        }
        "challenge" => {
            json!({"challenge": {"challenge_type": given["challenge_type"], "params": {}}})
        }
        _ => return Err(("bad-answer:unknown-decision", None)),
    };
    for key in ["tags", "rule_ids", "confidence"] {
        if let Some(value) = given.get(key) {
            answer["audit"][key] = value.clone();
        }
    }
    for side in ["request", "response"] {
        let mut ops = Vec::new();
        if let Some(set) = given[format!("add_{side}_headers")].as_object() {
            let set = set
                .iter()
                .map(|(name, value)| json!({"set": {"name": name, "value": value}}));
            ops.extend(set);
        }
        if let Some(names) = given[format!("remove_{side}_headers")].as_array() {
            ops.extend(names.iter().map(|name| json!({"remove": {"name": name}})));
        }
        answer[format!("{side}_headers")] = ops.into();
    }
    Ok(answer)
}

/// What a host goes on with after a hook.
fn hook_answer(text: &str, input: &str) -> Result<Value, Unusable> {
    let mut answer = ok();
    if text.is_empty() {
        return Ok(answer);
    }
    let given: Map<String, Value> = serde_json::from_str(text).unwrap();
    let is_ok = given.get("ok").ok_or(("bad-answer:no-ok", None))?;
    answer["ok"] = is_ok.clone();
    for key in ["error", "details"] {
        answer[key] = given.get(key).cloned().unwrap_or_default();
    }
    if let Some(wanted) = given.get("ctx").filter(|ctx| !ctx.is_null()) {
        let before: Value = serde_json::from_str(input).unwrap();
        let mut context = before.clone();
        context["input"] = wanted["input"].clone();
        if !wanted["data"].is_null() {
            context["data"] = wanted["data"].clone();
        }
        if *is_ok == true && context != before {
            answer["ctx"] = context;
        }
    }
    Ok(answer)
}

fn refuses(answer: &Value) -> bool {
    match answer.get("ok") {
        Some(is_ok) => *is_ok != true,
        None => answer["decision"] != "allow",
    }
}

/// One call of an exchange.
#[derive(Debug)]
struct Step {
    phase: &'static str,
    input: String,
    recorded: Option<Value>,
}

/// Calls that belong together.
#[derive(Debug)]
struct Exchange {
    /// Its first line, from 1.
    record: u64,
    id: String,
    steps: Vec<Step>,
    /// The body's pieces: index, and whether it is the last.
    chunks: Vec<(u64, bool)>,
}

impl Exchange {
    /// Whether a call can be its next one.
    fn goes_on(&self, phase: &str, input: &Value) -> bool {
        let has = |phase: &str| self.steps.iter().any(|step| step.phase == phase);
        let recorded = self.steps.iter().filter_map(|step| step.recorded.as_ref());
        if recorded.clone().any(refuses) {
            return false;
        }
        match phase {
            "after_hook" => !has("after_hook"),
            "response_headers" => !has("response_headers"),
            "request_body" => {
                let begun = has("request_headers") || has("request_body");
                let next = self.chunks.last().map_or(0, |last| last.0 + 1);
                let is_over = self.chunks.iter().any(|chunk| chunk.1);
                begun && !is_over && input["chunk_index"] == next
            }
            _ => false,
        }
    }
}

fn exchanges(lines: &[Line]) -> (Vec<Exchange>, u64) {
    let mut all: Vec<Exchange> = Vec::new();
    let mut broken = 0;
    for (at, line) in lines.iter().enumerate() {
        let Line::Call {
            id,
            phase,
            input,
            output,
            is_respelled,
        } = line
        else {
            broken += 1;
            continue;
        };
        let last = all.iter().rposition(|exchange| exchange.id == *id);
        let last = last.filter(|at| all[*at].goes_on(phase, input));
        let last = last.unwrap_or_else(|| {
            all.push(Exchange {
                record: at as u64 + 1,
                id: id.clone(),
                steps: Vec::new(),
                chunks: Vec::new(),
            });
            all.len() - 1
        });
        let exchange = &mut all[last];
        if *phase == "request_body" {
            let index = input["chunk_index"].as_u64().unwrap();
            exchange.chunks.push((index, input["is_last"] == true));
        }
        let mut recorded = output.clone();
        if let Some(recorded) = recorded.as_mut().filter(|_| *is_respelled) {
            respell(recorded);
        }
        let input = if *is_respelled && HOOKS.contains(phase) {
            // Only what a host passes on untouched stays as it was written.
            let mut context = input.clone();
            for part in ["input", "data"] {
                reverse(&mut context[part]);
            }
            context.to_string()
        } else {
            input.to_string()
        };
        exchange.steps.push(Step {
            phase,
            input,
            recorded,
        });
    }
    (all, broken)
}

/// How a side ended, as groups of changes name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Summary {
    pub(crate) decision: String,
    pub(crate) tags: Vec<String>,
    pub(crate) rule_ids: Vec<String>,
    pub(crate) fault: Option<String>,
}

impl Summary {
    pub(crate) fn of(answers: &[Value], fault: Option<&String>) -> Self {
        let texts = |list: &str| {
            let mut all: Vec<String> = Vec::new();
            let lists = answers.iter().filter_map(|it| it["audit"][list].as_array());
            for text in lists.flatten().filter_map(Value::as_str) {
                if !all.iter().any(|have| have == text) {
                    all.push(text.to_owned());
                }
            }
            all
        };
        Self {
            decision: decision(answers.last()),
            tags: texts("tags"),
            rule_ids: texts("rule_ids"),
            fault: fault.cloned(),
        }
    }

    /// From a report.
    pub(crate) fn read(value: &Value) -> Self {
        let texts = |list: &str| -> Vec<String> {
            let list = value[list].as_array().unwrap().iter();
            list.map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        Self {
            decision: value["decision"].as_str().unwrap().to_owned(),
            tags: texts("tags"),
            rule_ids: texts("rule_ids"),
            fault: value.get("fault").map(|it| it.as_str().unwrap().to_owned()),
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut text = self.decision.clone();
        if !self.tags.is_empty() {
            text += &format!(" [{}]", self.tags.join(", "));
        }
        if !self.rule_ids.is_empty() {
            text += &format!(" ({})", self.rule_ids.join(", "));
        }
        if let Some(fault) = &self.fault {
            text += &format!(" {fault}");
        }
        text
    }
}

fn decision(answer: Option<&Value>) -> String {
    let Some(answer) = answer else {
        return "allow".to_owned();
    };
    if let Some(is_ok) = answer.get("ok") {
        let changed = answer.get("ctx").is_some_and(|ctx| !ctx.is_null());
        return match (is_ok == true, changed, answer["error"].as_str()) {
            (true, false, _) => "ok".to_owned(),
            (true, true, _) => "ok changed".to_owned(),
            (false, _, Some(why)) if !why.starts_with("WASM plugin") => format!("refused: {why}"),
            (false, ..) => "refused".to_owned(),
        };
    }
    match answer.get("decision") {
        None => "(no decision)".to_owned(),
        Some(Value::String(name)) => name.clone(),
        Some(parts) => {
            let mut parts = parts.as_object().unwrap().iter();
            parts
                .next()
                .map_or_else(String::new, |(name, parts)| match parts.get("status") {
                    Some(status) => format!("{name} {status}"),
                    None => name.clone(),
                })
        }
    }
}

/// What one side answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Side {
    pub(crate) answers: Vec<Value>,
    /// Of each answer.
    pub(crate) faults: Vec<Option<String>>,
}

impl Side {
    pub(crate) fn fault(&self) -> Option<&String> {
        self.faults.iter().flatten().next_back()
    }

    pub(crate) fn of<'a>(answers: impl Iterator<Item = &'a Answered>) -> Self {
        let mut side = Self::default();
        for answered in answers {
            side.answers.push(answered.value.clone());
            side.faults.push(answered.fault.clone());
        }
        side
    }

    /// From the answers alone.
    fn recorded(answers: Vec<Value>) -> Self {
        let faults = answers.iter().map(|answer| {
            let of_hook = answer["error"].as_str();
            let of_hook = of_hook.and_then(|error| error.strip_prefix("WASM plugin trapped: "));
            let tags = answer["audit"]["tags"].as_array();
            let is_fault = tags.is_some_and(|tags| tags.contains(&json!("wasm-error")));
            let code = answer["audit"]["reason_codes"][0].as_str();
            of_hook.or(code.filter(|_| is_fault)).map(str::to_owned)
        });
        let faults = faults.collect();
        Self { answers, faults }
    }

    /// As a proxy is told it, less what is ignored.
    fn seen(&self, ignore: &[&str]) -> Vec<Value> {
        let answers = self.answers.iter().enumerate();
        let seen = answers.map(|(index, answer)| {
            let paths: Vec<&str> = ignore
                .iter()
                .filter_map(|pointer| about(pointer, index))
                .collect();
            let mut left = less(answer, "", &paths).unwrap_or(Value::Null);
            if let Some(parts) = left.as_object_mut() {
                parts.retain(|_, part| !part.is_null());
            }
            // Which instance a chunk meets is no answer of the module.
            if let Some(Value::Array(tags)) = left.pointer_mut("/audit/tags") {
                tags.retain(|tag| tag != "instance-changed");
            }
            for list in ["request_headers", "response_headers"] {
                if let Some(Value::Array(ops)) = left.get_mut(list) {
                    *ops = for_proxy(ops);
                }
            }
            left
        });
        seen.collect()
    }

    /// Whether an answer has this part.
    pub(crate) fn has(&self, pointer: &str) -> bool {
        let mut answers = self.answers.iter().enumerate();
        answers.any(|(index, answer)| {
            about(pointer, index).is_some_and(|path| answer.pointer(path).is_some())
        })
    }
}

/// The path of a pointer, where it is about the answer at this position.
fn about(pointer: &str, index: usize) -> Option<&str> {
    let (number, _) = pointer.split_once('/').unwrap();
    let path = &pointer[number.len()..];
    (number.is_empty() || number == (index + 1).to_string()).then_some(path)
}

/// A value at a path without those at others.
fn less(value: &Value, at: &str, paths: &[&str]) -> Option<Value> {
    if paths.contains(&at) {
        return None;
    }
    Some(match value {
        Value::Object(map) => {
            let parts = map.iter().filter_map(|(name, value)| {
                Some((name.clone(), less(value, &format!("{at}/{name}"), paths)?))
            });
            Value::Object(parts.collect())
        }
        Value::Array(list) => {
            let parts = list.iter().enumerate();
            let parts =
                parts.filter_map(|(index, value)| less(value, &format!("{at}/{index}"), paths));
            Value::Array(parts.collect())
        }
        other => other.clone(),
    })
}

/// Changes of headers by name, those of one name in their order.
fn for_proxy(ops: &[Value]) -> Vec<Value> {
    let mut names: BTreeMap<Option<String>, Vec<Value>> = BTreeMap::new();
    for op in ops {
        let mut op = op.clone();
        let (_, parts) = op.as_object_mut().unwrap().iter_mut().next().unwrap();
        let name = parts.get("name").and_then(Value::as_str);
        let name = name.map(str::to_lowercase);
        if let Some(name) = &name {
            parts["name"] = name.clone().into();
        }
        let of_name = names.entry(name).or_default();
        if of_name.last() != Some(&op) {
            of_name.push(op);
        }
    }
    names.into_values().flatten().collect()
}

/// How a transaction came out otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) category: &'static str,
    pub(crate) from: Summary,
    pub(crate) to: Summary,
    pub(crate) fields: BTreeSet<String>,
}

pub(crate) fn differ(old: &Side, new: &Side, ignore: &[&str]) -> Option<Change> {
    let (mut left, mut right) = (old.seen(ignore), new.seen(ignore));
    let both = left.len().min(right.len());
    // Whether there are more answers follows from what the last of them decides.
    let decides = |pointer: &&str| {
        let path = both.checked_sub(1).and_then(|last| about(pointer, last));
        matches!(path, Some("/decision" | "/ok"))
    };
    if ignore.iter().any(decides) {
        left.truncate(both);
        right.truncate(both);
    }
    let mut fields = BTreeSet::new();
    for (index, (left, right)) in left.iter().zip(&right).enumerate() {
        let number = if index == 0 {
            String::new()
        } else {
            (index + 1).to_string()
        };
        if !left.is_null() {
            parts(&number, (left, right), &mut fields);
            continue;
        }
        // Whatever let it pass was not recorded.
        for name in ["decision", "ok"] {
            if right.get(name).is_some() {
                fields.insert(format!("{number}/{name}"));
            }
        }
    }
    if left.len() != right.len() {
        fields.insert("steps".to_owned());
    }
    let is_new = |(at, fault): (usize, &Option<String>)| {
        fault.is_some() && old.faults.get(at) != Some(fault)
    };
    let is_new_fault = new.faults.iter().enumerate().any(is_new);
    if fields.is_empty() && is_new_fault {
        fields.insert("fault".to_owned());
    }
    if fields.is_empty() {
        return None;
    }
    let from = Summary::of(&left, old.fault());
    let to = Summary::of(&right, new.fault());
    let word = |summary: &Summary| {
        let word = summary.decision.split([' ', ':']).next();
        word.unwrap_or_default().to_owned()
    };
    let category = match (is_new_fault, word(&from) == word(&to)) {
        (true, _) => "faulted",
        (false, true) => "details",
        (false, false) => "decision",
    };
    Some(Change {
        category,
        from,
        to,
        fields,
    })
}

fn parts(path: &str, sides: (&Value, &Value), fields: &mut BTreeSet<String>) {
    let (Value::Object(left), Value::Object(right)) = sides else {
        if sides.0 != sides.1 {
            fields.insert(path.to_owned());
        }
        return;
    };
    for name in left.keys().chain(right.keys()) {
        let path = format!("{path}/{name}");
        match (left.get(name), right.get(name)) {
            (Some(left), Some(right)) => parts(&path, (left, right), fields),
            _ => {
                fields.insert(path);
            }
        }
    }
}

/// What is right for a transaction.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) record: u64,
    pub(crate) new: Vec<Answered>,
    pub(crate) old: Option<Vec<Answered>>,
    /// The sides of each comparison.
    pub(crate) beside: Option<(Side, Side)>,
    pub(crate) drifted: Option<(Side, Side)>,
    pub(crate) beside_change: Option<Change>,
    pub(crate) drift_change: Option<Change>,
    /// Neither module decides as it was recorded.
    pub(crate) departs: bool,
    /// Calls that it has.
    pub(crate) asked: usize,
    /// What answered at the time had a fault that was not recorded, or left a
    /// context to the second hook.
    pub(crate) is_unclear: bool,
    pub(crate) has_record: bool,
}

impl Judged {
    pub(crate) fn faults(&self) -> bool {
        self.new.iter().any(|answered| answered.fault.is_some())
    }

    /// Whether it was compared with what decides, and what came of it.
    pub(crate) fn judged(&self) -> (bool, Option<&Change>) {
        match &self.old {
            Some(_) => (true, self.beside_change.as_ref()),
            None => (self.drifted.is_some(), self.drift_change.as_ref()),
        }
    }
}

/// What is right for a replay.
#[derive(Debug)]
pub(crate) struct Truth {
    pub(crate) transactions: Vec<Judged>,
    pub(crate) unusable: u64,
}

impl Case {
    /// The capture.
    pub(crate) fn capture(&self) -> String {
        let lines = self.lines.iter();
        lines.map(|line| line.text() + "\n").collect()
    }

    fn guest<'r>(&self, rules: &'r Rules) -> Guest<'r> {
        let is_fresh = self.flags.is_fresh || self.is_hooks;
        Guest::new(rules, (self.is_hooks, self.flags.is_open, is_fresh))
    }

    /// What is right for it.
    pub(crate) fn truth(&self) -> Truth {
        let (exchanges, unusable) = exchanges(&self.lines);
        let mut new = self.guest(&self.new);
        let mut old = self.old.as_ref().map(|old| self.guest(old));
        let mut transactions = Vec::new();
        for exchange in exchanges {
            let steps = &exchange.steps;
            let new = new.play(steps);
            let old = old.as_mut().map(|old| old.play(steps));
            let drifted = drifted(steps, old.as_ref().unwrap_or(&new));
            let beside = old
                .as_ref()
                .map(|old| (Side::of(old.iter()), Side::of(new.iter())));
            let change = |sides: &Option<(Side, Side)>| {
                let (from, to) = sides.as_ref()?;
                differ(from, to, &self.flags.ignore)
            };
            let decides_otherwise = |change: &Option<Change>| {
                let change = change.as_ref();
                change.is_some_and(|change| change.category != "details")
            };
            let departs = old.is_some()
                && decides_otherwise(&change(&drifted))
                && decides_otherwise(&change(&self::drifted(steps, &new)));
            transactions.push(Judged {
                record: exchange.record,
                departs,
                beside_change: change(&beside),
                drift_change: change(&drifted),
                asked: steps.len(),
                is_unclear: {
                    let past = self.guest(&self.past).play(steps);
                    let mut past = past.iter().zip(steps);
                    let hides = |(it, step): (&Answered, &Step)| {
                        let has_more = it.fault.is_some() || self.is_hooks && steps.len() > 1;
                        step.recorded.is_none() && has_more
                    };
                    past.any(hides)
                },
                has_record: steps.iter().any(|step| step.recorded.is_some()),
                new,
                old,
                beside,
                drifted,
            });
        }
        Truth {
            transactions,
            unusable,
        }
    }
}

/// What was recorded, and what is answered now to the same calls; null for other
/// calls. A refusal that comes earlier stands for all that is not asked any more.
fn drifted(steps: &[Step], now: &[Answered]) -> Option<(Side, Side)> {
    let last = steps.iter().rposition(|step| step.recorded.is_some())?;
    let recorded = steps[..=last]
        .iter()
        .map(|step| step.recorded.clone().unwrap_or_default());
    let mut new = Side::default();
    for (step, answered) in steps[..=last].iter().zip(now) {
        if step.recorded.is_some() || refuses(&answered.value) {
            new.answers.push(answered.value.clone());
            new.faults.push(answered.fault.clone());
        } else {
            new.answers.push(Value::Null);
            new.faults.push(None);
        }
    }
    Some((Side::recorded(recorded.collect()), new))
}
