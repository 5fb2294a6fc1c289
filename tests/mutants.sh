#!/bin/sh
# Shows that the tests notice a missing protection: takes one protection after
# the other out of a copy of the crate and runs the tests for it, which must
# then fail. Numbers in names are those of docs/faults.md. Not part of CI: it builds the crate once for each mutant.
#
#   CARGO_TARGET_DIR=/some/scratch/target tests/mutants.sh [PART-OF-A-NAME...]
#
# Prints a line for each: `caught`, `SURVIVED`, `STALE` (the code it changes is
# no longer there) or `BROKEN` (it does not build). Exits 0 if all are caught.
# Linux, with git, perl and cargo. Do not share the target folder with a build
# that is going on.
#
#   tests/mutants.sh --stale
#
# Builds nothing: prints those that are stale and exits 0 if none is. CI does.
set -eu

only_stale=
if [ "${1-}" = --stale ]; then
    only_stale=yes
    shift
else
    : "${CARGO_TARGET_DIR:?give it a target folder of its own}"
    export CARGO_TARGET_DIR
fi
wanted=$*
all=$([ -n "$wanted" ] || echo yes)
root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
files() {
    if [ "$only_stale" ]; then
        printf 'src\0'
    else
        git ls-files -co --exclude-standard -z
    fi
}
(cd "$root" && files | tar c --null -T - 2>/dev/null) | tar xm -C "$copy"
cd "$copy"
log=$copy/mutant.log
ran=0
bad=0

# mutant NAME FILE PERL TESTS
mutant() {
    chosen=$all
    for part in $wanted; do
        case $1 in *"$part"*) chosen=yes ;; esac
    done
    [ "$chosen" ] || return 0
    ran=$((ran + 1))
    cp "$2" "$copy/saved"
    perl -0pi -e "$3" "$2"
    started=$(date +%s)
    if cmp -s "$2" "$copy/saved"; then
        verdict=STALE
    elif [ "$only_stale" ]; then
        cat "$copy/saved" >"$2"
        return 0
    elif ! nice -n 5 cargo test --quiet --test cli --no-run >"$log" 2>&1; then
        verdict=BROKEN
    elif nice -n 5 cargo test --quiet --test cli "$4" >"$log" 2>&1; then
        verdict=SURVIVED
    else
        verdict=caught
    fi
    if [ "$verdict" = caught ]; then
        by=$(sed -n 's/^    \([a-z_]*::\)*\([a-z0-9_]*\)$/\2/p' "$log" | sort -u | tr '\n' ' ')
    else
        bad=$((bad + 1))
        by=$(grep -m 1 -E '^error' "$log" 2>/dev/null || true)
    fi
    printf '%-9s %-34s %3ss  %s\n' "$verdict" "$1" $(($(date +%s) - started)) "$by"
    cat "$copy/saved" >"$2"
}

# What is not changed passes, or nothing below means anything.
if [ -z "$only_stale" ] && ! nice -n 5 cargo test --quiet --test cli faults:: >"$log" 2>&1; then
    cat "$log"
    echo 'the tests fail without any mutation'
    exit 2
fi

mutant m01-pool-keeps-poisoned src/policy/pool.rs 's/if instance\.poison\(\)\.is_some\(\)/if false/' m_01
mutant m01-default-is-open src/cli/mod.rs 's/FailurePolicy::Closed/FailurePolicy::Open/' m_01
mutant m02-deadline-too-late src/guest/deadline.rs 's/after\(now, self\.timeout\)/after(now, self.timeout * 100)/' m_02
mutant m02-no-deadline src/guest/instance.rs 's/if state\.wasi\.deadline\.is_over\(now\) \{\n(\s+)UpdateDeadline::Interrupt/if false {\n$1UpdateDeadline::Interrupt/' m_03_an_endless_alloc
mutant m02-any-repeat-is-believed src/policy/mod.rs 's/MAX_REPEATS: u32 = 3/MAX_REPEATS: u32 = u32::MAX/; s/if !had_company \|\| /if /' m_02_a_guest_that_hangs
mutant m02-other-work-counts src/guest/deadline.rs 's/let left = self\.timeout\.saturating_sub\(self\.spent\(\)\);/let left = Duration::ZERO;/' a_deadline_counts
mutant m02-interrupted-is-reused src/fault.rs 's/\| Self::Deadline\n//; s/Self::BadEvent\(_\)\n/Self::BadEvent(_) | Self::Deadline\n/' m_0
mutant m03-start-not-tried src/cli/mod.rs 's/policy\.start\(\)\?;//' m_03_a_start
mutant m04-m06-no-memory-cap src/guest/host.rs 's/all <= self\.max_memory_bytes\n\s+&& //' m_0
mutant m05-any-callers-stack src/guest/host.rs 's/left >= CALLERS_STACK_BYTES/left > 0/' m_05
mutant m06-no-limiter src/guest/instance.rs 's/store\.limiter\(\|state\| state\);//' m_06
mutant m06-grows-not-counted src/guest/host.rs 's/\n\s+&& self\.grows <= MAX_GROWS_PER_CALL;/;/' m_06
mutant m06-one-memory-counted src/guest/host.rs 's/\.saturating_sub\(current\)\n\s+\.saturating_add\(desired\)/.max(desired)/' m_06_several
mutant m06-refused-growth-counted src/guest/host.rs 's/&& maximum\.is_none_or\(\|maximum\| desired <= maximum\)//' m_06_several
mutant m06-grows-never-forgotten src/guest/instance.rs 's/state\.grows = 0;//' m_06
mutant m07-initial-memory src/guest/contract.rs 's/if initial > limits\.max_memory_bytes/if false/' m_07
mutant m07-many-memories src/guest/contract.rs 's/if all\.len\(\) > limits::MAX_MEMORIES/if false/' m_07
mutant m07-table-size src/guest/contract.rs 's/ && largest <= limits::MAX_TABLE_ELEMENTS//' m_07
mutant m07-table-count src/guest/contract.rs 's/facts\.tables\.len\(\) <= limits::MAX_TABLES && //' m_07
mutant m07-table-grows src/guest/host.rs 's/desired as u64 <= MAX_TABLE_ELEMENTS && //' m_07
mutant m08-alloc-null src/guest/convention/json_buffer/guest.rs 's/if ptr == 0 && len != 0/if false/' m_08
mutant m09-pointers-signed src/guest/faults.rs 's/let start = usize::try_from\(ptr\)\.ok\(\)\?;/let start = usize::try_from(ptr.cast_signed().max(0)).ok()?;/' m_09
mutant m10-pointers-signed src/guest/faults.rs 's/let start = usize::try_from\(ptr\)\.ok\(\)\?;/let start = usize::try_from(ptr.cast_signed().max(0)).ok()?;/' m_10
mutant m10-lengths-signed src/guest/faults.rs 's/usize::try_from\(len\)\.ok\(\)\?/usize::try_from(len.cast_signed().max(0)).ok()?/' m_10
mutant m10-bounds-by-panic src/guest/convention/json_buffer/guest.rs 's/let Some\(bytes\) = range\(ptr, len\)\.and_then\(\|range\| memory\.get\(range\)\) else/let Some(bytes) = range(ptr, len).map(|range| \&memory[range]) else/' m_10
mutant m10-answer-limit src/guest/convention/json_buffer/guest.rs 's/if u64::from\(len\) > self\.max_answer_bytes/if false/' m_10
mutant m12-empty-not-tagged src/policy/decision.rs 's/response\.tag\("empty-answer"\);//; s/let mut response = AgentResponse::allow\(\);\n(\s+)response\n/let response = AgentResponse::allow();\n$1response\n/' m_12
mutant m12-address-zero-read src/guest/convention/json_buffer/guest.rs 's/let has_answer = len != 0 && \(ptr != 0 \|\| self\.reads_address_zero\);/let has_answer = len != 0;/' m_12
mutant m13-trailing-bytes src/guest/convention/json_buffer/answer.rs 's/\.and_then\(\|\(\)\| reader\.end\(\)\)//' m_13
mutant m13-open-fault-untagged src/policy/decision.rs 's/response\.tag\("wasm-error"\);//' m_13
mutant m14-unknown-allows src/guest/convention/json_buffer/answer.rs 's/Word::read\(raw\)\.ok_or_else/Word::read(raw).or(Some(Word::Allow)).ok_or_else/' m_14
mutant m14-trimmed src/guest/convention/json_buffer/answer.rs 's/text\.eq_ignore_ascii_case\(word\)/text.trim().eq_ignore_ascii_case(word)/' m_14
mutant m15-block-status src/guest/convention/json_buffer/answer/rules.rs 's/200 <= status && status <= 599/status > 0/' m_15
mutant m15-redirect-status src/guest/convention/json_buffer/answer/rules.rs 's/matches!\(status, 301 \| 302 \| 303 \| 307 \| 308\)/300 <= status \&\& status < 400/' m_15
mutant m15-bad-status-in-silence src/guest/convention/json_buffer/answer.rs 's/response\.tag\("bad-status"\);//' m_15
mutant m16-any-character src/guest/convention/json_buffer/answer/rules.rs 's/if !visible \|\| url/if url/' m_16
mutant m16-other-hosts src/guest/convention/json_buffer/answer/rules.rs 's/return !url\.starts_with\("\/\/"\);/return true;/' m_16
mutant m16-any-scheme src/guest/convention/json_buffer/answer/rules.rs 's/\(scheme\.eq_ignore_ascii_case\("http"\) \|\| scheme\.eq_ignore_ascii_case\("https"\)\)/true/' m_16
mutant m17-values-unchecked src/guest/convention/json_buffer/answer/rules.rs 's/byte < b\x27 \x27 && byte != b\x27\\t\x27 \|\| byte == 0x7f/byte == b\x27\\t\x27 \&\& false/' m_17
mutant m17-names-unchecked src/guest/convention/json_buffer/answer/rules.rs 's/if !is_token\(op\.name\(\)\)/if false/' m_17
mutant m17-framing src/guest/convention/json_buffer/answer/rules.rs 's/framing\.eq_ignore/framing.is_empty() \&\& framing.eq_ignore/' m_17
mutant m17-count src/guest/convention/json_buffer/answer/rules.rs 's/if self\.ops > MAX_HEADER_OPS /if false /' m_17
mutant m17-bytes src/guest/convention/json_buffer/answer/rules.rs 's/\(self\.bytes > MAX_HEADER_OPS_BYTES\)/(false)/' m_17
mutant m17-dropped-in-silence src/guest/convention/json_buffer/answer.rs 's/response\.tag\("bad-header"\);//' m_17
mutant m18-fresh-is-pooled src/policy/pool.rs 's/Isolation::Fresh => true/Isolation::Fresh => false/' m_18
mutant m18-recycled-one-late src/policy/pool.rs 's/instance\.calls\(\) >= calls/instance.calls() > calls/' m_18
mutant m19-no-high-water-mark src/policy/pool/room.rs 's/if grown <= room \/ 100 \* RECYCLE_MEMORY_PERCENT/if true || grown <= room \/ 100 * RECYCLE_MEMORY_PERCENT/' m_19
mutant m19-start-is-growth src/policy/pool/room.rs 's/memory\.now\.saturating_sub\(memory\.at_start\)/memory.now/' m_19_an_instance
mutant m19-no-trial src/policy/pool/room.rs 's/const TRIALS: u32 = 3/const TRIALS: u32 = 0/' m_19_an_instance
mutant i02-compile-memory src/limits.rs 's/MAX_FUNCTION_COMPILE_BYTES: u64 = 84 << 20/MAX_FUNCTION_COMPILE_BYTES: u64 = 84 << 40/' i_02_what_is_too_dear
mutant i02-compile-memory-of-all src/limits.rs 's/MAX_COMPILE_BYTES: u64 = 136 << 20/MAX_COMPILE_BYTES: u64 = 136 << 40/' i_02_a_module_of_many
mutant file-size-signal src/cli/mod.rs 's/\n    outlive_file_size_limits\(\);//' what_meets_a_limit
mutant m20-instance-kept src/guest/convention/json_buffer/guest.rs 's/if let Err\(fault\) = given_back \{\n\s+self\.not_given_back = Some\(fault\.code\);\n\s+\}/let _ = given_back;/' m_20
mutant m20-answer-lost src/guest/convention/json_buffer/guest.rs 's/if let Err\(fault\) = given_back \{\n\s+self\.not_given_back = Some\(fault\.code\);\n\s+\}/given_back?;/' m_20
mutant m21-any-type src/guest/convention/json_buffer/exports.rs 's/if export\.ty == ItemType::Func\(ty\.into\(\)\) =>/if matches!(export.ty, ItemType::Func(_)) =>/' m_21
mutant m22-imported-memory src/guest/contract.rs 's/\|memory\| memory\.is_imported/|_| false/' m_22
mutant m22-memory64 src/guest/contract.rs 's/\|memory\| memory\.is_64/|_| false/' m_22
mutant m22-shared-memory src/guest/contract.rs 's/\|memory\| memory\.is_shared/|_| false/' m_22
mutant m23-abort-of-any-type src/guest/convention/mod.rs 's/\(\*\*ty == \*ABORT_TYPE\)\.then_some\(Linked::Abort\)/Some(Linked::Abort)/' m_23
mutant m23-abort-unread src/guest/faults.rs 's/let header = range\(address\.checked_sub\(4\)\?, 4\)\?;/let header = range(address.checked_sub(4)?, 0)?;/' m_23
mutant m24-nothing-escaped src/fault.rs 's/if is_unprintable\(character\)/if false \&\& is_unprintable(character)/' m_24
mutant m24-only-c0-escaped src/fault.rs 's/character\.is_control\(\)/character < \x27 \x27/' m_24
mutant m24-nothing-cut src/fault.rs 's/if out\.len\(\) >= max_bytes/if false \&\& out.len() >= max_bytes/' m_24
mutant m24-summary-raw src/ops/run/report.rs 's/printable\(&response\.audit\.tags\.join\(", "\), SHOWN\)/response.audit.tags.join(", ")/; s/use crate::fault::\{Fault, printable\}/use crate::fault::Fault/' m_24
mutant m24-import-names-raw src/guest/contract/imports.rs 's/let name = \|text\| printable\(text, 100\);/let name = |text: \&str| text.to_owned();/; s/use crate::fault::printable;\n//' m_24
mutant m23-files-open src/guest/wasi/link.rs 's/(Role::NoFile \| Role::NoDirectory \| Role::NoSocket => \{\n\s+)return Err\(Errno::BadDescriptor\.into\(\)\)/$1return Ok(())/' m_23_nothing
mutant m23-clocks-of-the-host src/limits.rs 's/#\[default\]\n\s+(Fixed => "fixed",)/$1/; s/(Real => "real",)/#[default]\n        $1/' m_23_clocks
mutant m23-sleeps-as-long-as-it-likes src/guest/deadline.rs 's/if time >= left \{/if false {/; s/self\.(slept \+|next_look -|end -)= time;//g' m_23_a_sleep
mutant m23-exits-go-on src/guest/wasi/link.rs 's/Role::Exit => return Err\(Ended::Exit\(params\.int\(0\)\)\.into\(\)\)/Role::Exit => return Ok(())/' m_23_an_exit
mutant m23-initialize-mistyped src/guest/contract.rs 's/let initializers = facts\.initializers\.iter\(\);/let initializers = std::iter::empty::<\&\&str>();/' a_program
mutant m23-constructors-twice src/guest/inspect.rs 's/!before_all\.contains\(it\) && //' constructors_are_called_once
mutant m23-constructors-of-one-handler src/guest/inspect.rs 's/each\.all\(/each.any(/' constructors_are_called_once
mutant m23-uncalled-start src/guest/contract.rs 's/checks\.extend\(uncalled_start\(facts\)\);//' a_start_that_nobody_calls
mutant m19-settled-too-soon src/ops/validate/growth.rs 's/PATIENCE: f64 = 2\.5/PATIENCE: f64 = 0.5/' a_leak_is_found
mutant m19-told-before-settled src/ops/validate/growth.rs 's/if ended == Ended::Early/if false/' a_collector_that_has_run
mutant m19-few-calls src/ops/validate/growth.rs 's/LEAST_CALLS: u64 = 10_000/LEAST_CALLS: u64 = 100/' memory_that_does_not_grow
mutant m18-answers-thrown-away src/ops/validate/growth.rs 's/self\.compare\(trial, &seen\);//' what_counts
mutant m18-one-sample-seldom src/ops/validate/state.rs 's/REPEATS: usize = 3_500/REPEATS: usize = 5/' what_counts_calls_of_a_kind
mutant m18-older-than-production src/ops/validate/state.rs 's/before\.len\(\) >= life \|\| is_full/false/' an_instance_is_called_as_often
mutant m18-bench-looks-away src/ops/bench/harness.rs 's/if policy\.is_repeatable\(\)/if false/' bench::steady
mutant m18-gate-passes src/ops/bench/report.rs 's/!self\.changed_answers\.is_empty\(\)/false/' bench::steady
mutant m18-changed-is-saved src/ops/bench/session.rs 's/\.filter\(\|_\| report\.changed_answers\.is_empty\(\)\)//' no_gate_passes
mutant m18-replay-looks-away src/ops/replay/work.rs 's/if !self\.asks_again/if true/' on_earlier_calls
mutant m18-run-looks-away src/ops/run/steps.rs 's/again == Again::OnNewInstance && //; s/calls_before > 0/false/' run::order
mutant m18-chunks-on-one-instance src/ops/validate/bodies.rs 's/let apart = self\.ask\(&chunks, instances\)/let apart = self.ask(\&chunks, 1)/' a_module_that_joins
mutant m18-cut-in-the-middle-only src/ops/validate/bodies.rs 's/is_marked && self\.missed\.is_none\(\)/false/' a_module_that_looks_at_one_chunk
mutant m18-no-other-exchange src/ops/validate/bodies.rs 's/if by_others \{/if false {/' joined_across_exchanges
mutant m18-costs-not-compared src/ops/validate/bodies.rs 's/is_sure && after_own != after_other/false/' kept_by_the_correlation_id
mutant m18-chunks-for-whole src/ops/validate/calls.rs 's/if self\.body_mode\(\) == BodyMode::Chunks/if true/' gets_bodies_whole
mutant m18-late-not-noticed src/ops/validate/growth.rs 's/if first != now/if false/' after_many_unfinished_bodies
mutant m19-parts-among-all src/ops/validate/growth.rs 's/ && !samples::is_partial\(&trial\.sample\)//' bodies_that_are_kept
mutant m19-ids-come-again src/ops/validate/growth.rs 's/self\.watch\.calls \/ calls\)/calls)/' a_note_for_each
mutant m25-bytes-compared src/ops/validate/calls.rs 's/one\.answer\.tells_the_same\(&other\.answer\)/one.answer == other.answer/' answers_that_tell
mutant m25-real-clocks-compared src/ops/validate/calls.rs 's/is_real\.then\(/false.then(/' real_clocks_and_random
mutant m25-any-case-is-one src/ops/validate/answers.rs 's/let mut text = told\(seen\);/let mut text = told(seen).to_ascii_lowercase();/' a_value_in_another_letter_case
mutant replaced-cookies src/protocol/proxy.rs 's/\(replaces\("set-cookie"\), /(false, /' cookies_that_replace
mutant notice-of-emscripten src/guest/convention/mod.rs 's/\("env", "emscripten_notify_memory_growth"\)/("env", "no")/' a_notice_of_emscripten
mutant m24-output-unbounded src/guest/wasi/output.rs 's/bytes\.iter\(\)\.take\(left\)/bytes.iter()/; s/_ if !self\.log_limiter\.admit\(\) => \{\}//' m_24_a_flood
mutant m24-errors-raw src/cli/render/human.rs 's/text\.lines\(\)\.map\(\|line\| printable\(line, 1024\)\)/text.lines().map(str::to_owned)/' m_24
mutant m25-nan-as-it-comes src/guest/engine.rs 's/cranelift_nan_canonicalization\(true\)/cranelift_nan_canonicalization(false)/' m_25
mutant m25-relaxed-simd src/guest/inspect.rs 's/\.union\(WasmFeatures::SIMD\)/.union(WasmFeatures::SIMD).union(WasmFeatures::RELAXED_SIMD)/' m_25
mutant m25-headers-unsorted src/guest/convention/json_buffer/event.rs 's/sorted\.sort_by\(\|a, b\| a\.0\.cmp\(&b\.0\)\);//; s/let mut sorted: Vec/let sorted: Vec/' m_25
mutant invariant-refusal-forgotten src/policy/decision.rs 's/match \(policy, fault\.refusal\)/match (policy, fault.refusal.filter(|_| false))/' invariant_2
mutant invariant-refusals-unread src/guest/convention/json_buffer/answer.rs 's/fault\.refusal = find_refusal\(bytes\);//' invariant_2
mutant invariant-first-word-wins src/guest/convention/json_buffer/answer/refusal.rs 's/self\.refuses = true;/self.refuses = self.status.is_none();/' invariant_2
mutant invariant-broken-quotes-hide src/guest/convention/json_buffer/answer/refusal.rs 's/reader\.is_unclear && mentions_refusal\(bytes\)/false \&\& mentions_refusal(bytes)/' invariant_2
mutant invariant-too-large-is-unread src/guest/instance.rs 's/fault\.refusal = self\.guest\.refusal_in_unread\(&self\.store\);//' invariant_2
mutant invariant-framing-removed src/guest/convention/json_buffer/answer/rules.rs 's/let framing = framing_header\(op\.name\(\)\)\?;/if matches!(op, HeaderOp::Remove { .. }) { return None; } let framing = framing_header(op.name())?;/' m_17
mutant invariant-types-unchecked src/guest/convention/json_buffer/answer.rs 's/needs_more = self\.needs_more\(\)\?/needs_more = self.needs_more().unwrap_or(false)/' invariant_1
mutant i01-pipes-opened src/files.rs 's/kind\.is_file\(\) \|\| self == Self::Stream/!kind.is_dir() || self == Self::Stream/' i_01_what_is_no
mutant i01-size-unbounded src/guest/module.rs 's/limits\.max_module_bytes \{/u64::MAX {/g; s/limits\.max_module_bytes\.saturating_add\(1\)/u64::MAX/' i_01_a_huge
mutant i01-elf-unnamed src/guest/module.rs 's/bytes\.starts_with\(b"\\x7fELF"\)/false/' i_01_other
mutant i02-nesting src/limits.rs 's/MAX_NESTING: u32 = 1_000/MAX_NESTING: u32 = 1_000_000/' i_02_func
mutant i02-function-bytes src/limits.rs 's/MAX_FUNCTION_BYTES: usize = 512 << 10/MAX_FUNCTION_BYTES: usize = 512 << 20/' i_02_func
mutant i02-locals src/limits.rs 's/MAX_LOCALS: u64 = 2_000/MAX_LOCALS: u64 = u64::MAX/' i_02_func
mutant i02-functions src/limits.rs 's/MAX_FUNCTIONS: u32 = 20_000/MAX_FUNCTIONS: u32 = u32::MAX/' i_02_modules
mutant i02-segments src/limits.rs 's/MAX_DATA_SEGMENTS: u32 = 100_000/MAX_DATA_SEGMENTS: u32 = u32::MAX/' i_02_modules
mutant i02-carried-locals src/limits.rs 's/MAX_CARRIED_LOCALS: u64 = 500_000/MAX_CARRIED_LOCALS: u64 = u64::MAX/' i_02_loops
mutant i02-type-values src/limits.rs 's/MAX_TYPE_VALUES: u64 = 1_000_000/MAX_TYPE_VALUES: u64 = u64::MAX/' i_02
mutant i02-types-shown-whole src/guest/inspect.rs 's/const SHOWN: usize = 16;/const SHOWN: usize = usize::MAX;/' i_02_long
mutant i02-text-size src/limits.rs 's/MAX_TEXT_BYTES: usize = 8 << 20/MAX_TEXT_BYTES: usize = 64 << 20/' i_02_text
mutant i02-imports-listed src/guest/contract.rs 's/\.take\(limits::MAX_LISTED\)//' i_02_names
mutant i02-long-names-compared src/suggest.rs 's/MAX_BYTES: usize = 64/MAX_BYTES: usize = usize::MAX/' i_02_names
mutant i02-compile-time src/guest/engine.rs 's/let mut wait = limit;/let mut wait = limit * 100_000;/' i_02_compiling
mutant i03-producers-unbounded src/guest/inspect.rs 's/facts\.producers\.len\(\) < limits::MAX_LISTED/true/' i_03_a_million
mutant i03-names-uncut src/guest/stack.rs 's/printable\(&format!\("\{:#\}", rustc_demangle::demangle\(name\)\), 200\)/format!("{:#}", rustc_demangle::demangle(name))/' i_03
mutant i04-depth src/fixture/text.rs 's/MAX_DEPTH: usize = 32/MAX_DEPTH: usize = 100/' i_04
mutant i04-size src/fixture/files.rs 's/MAX_FIXTURE_BYTES: u64 = 64 << 20/MAX_FIXTURE_BYTES: u64 = 1 << 30/' i_04_a_huge
mutant i04-headers-twice src/fixture/parse.rs 's/if !seen\.insert\(name\.clone\(\)\)/if false \&\& seen.insert(name.clone())/' i_04
mutant i04-wrong-column src/fixture/text.rs 's/before\[line_start\.\.\]\.chars\(\)\.count\(\) \+ 1/before.chars().count() + 1/' i_04
mutant i07-stdout-must-work src/cli/render/mod.rs 's/let \(KeepsError\(_, first\), _\) = out\.into_parts\(\);/let (KeepsError(_, first), _) = out.into_parts(); written.as_ref().unwrap();/' i_07
mutant i07-lost-report-is-success src/cli/mod.rs 's/if render::is_output_lost\(\)/if false \&\& render::is_output_lost()/' i_07
mutant i07-full-in-silence src/cli/render/mod.rs 's/&& error\.kind\(\) != io::ErrorKind::BrokenPipe/\&\& error.kind() == io::ErrorKind::Other/' i_07
mutant i07-stderr-must-work src/cli/render/mod.rs 's/let _ = (writeln!\(io::stderr\(\)\.lock\(\), "\{\}", escape::lines\(line, colored\)\));/$1.unwrap();/' i_07
mutant i07-help-must-work src/cli/render/mod.rs 's/let _ = error\.print\(\);/error.print().unwrap();/' i_07
mutant i07-report-errors-ignored src/cli/render/mod.rs 's/file\.write\(\|out\| render\(format, out\)\)\n\s+\.map_err\(\|source\| Error::Write \{ path, source \}\)\?;/let _ = (file.write(|out| render(format, out)), path);/' i_07
mutant bodies-variable-cut src/guest/inspect.rs 's/bytes\.map\(Option::unwrap_or_default\)/if bytes.iter().all(Option::is_some) { bytes.map(Option::unwrap_or_default) } else { [0; 4] }/' what_the_global
mutant bodies-word-may-change src/guest/inspect.rs 's/number\.filter\(\|_\| !global\.ty\.mutable\)/number/' what_the_global
mutant bodies-own-answer-checks src/ops/run/steps.rs 's/!handled\.is_collected \|\| !mismatches\.is_empty\(\);/true;/' run::bodies
mutant bodies-instance-not-told src/ops/run/steps.rs 's/spelling\.instance_hint\(fixture, &mut results\);//' run::bodies
mutant bodies-unfinished-not-told src/ops/run/steps.rs 's/\*has_whole_body = !exchange\.has_unfinished_body\(\);//' run::bodies

echo "$ran mutants, $bad of them $([ "$only_stale" ] && echo stale || echo not caught)"
[ "$ran" -gt 0 ] && [ "$bad" -eq 0 ]
