#!/bin/sh
# Shows that the tests of `serve` and of what it records bite: every protection
# below is taken out of a copy of the crate behind a switch, the copy is built
# once, and the tests of each row run with one switch on, which must then fail.
# Not part of CI. The core's protections have `mutants.sh`, a build for each.
#
#   CARGO_TARGET_DIR=/some/scratch/target tests/mutants_serve.sh [PART-OF-A-NAME...]
#
# Prints a line for each: `caught`, `SURVIVED` or `STALE` (the code it changes
# is no longer there). Exits 0 if all are caught. Linux, with git, perl and cargo.
#
#   tests/mutants_serve.sh --stale
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
list=$copy/switches
: >"$list"
stale=0

# switch NAME FILE PERL TESTS: the Perl may say off("NAME") for "as if
# this protection were not there".
switch() {
    cp "$2" saved
    perl -0pi -e "$3" "$2"
    if cmp -s "$2" saved; then
        printf '%-9s %s\n' STALE "$1"
        stale=$((stale + 1))
    else
        printf '%s %s\n' "$1" "$4" >>"$list"
    fi
}

cat >>src/lib.rs <<'END'

/// Whether this protection is taken out.
#[must_use]
pub fn off(name: &str) -> bool {
    static OFF: std::sync::LazyLock<Option<String>> = std::sync::LazyLock::new(|| std::env::var("WASM_AGENT_MUTANT").ok());
    OFF.as_deref() == Some(name)
}
END

off() { printf '(crate::off("%s"))' "$1"; }

# Who may connect, and how many.
switch o04-strangers-let-in src/server/accept.rs 's/if allowed\.is_empty\(\) \{/if allowed.is_empty() || '"$(off o04-strangers-let-in)"' {/' o_04
switch o04-mode-by-umask src/server/bind.rs 's/(std::fs::set_permissions\(temporary, .*?\))\n\s+\.map_err\(system\(path, "give the socket its mode"\)\)\?;/if !'"$(off o04-mode-by-umask)"' { $1.map_err(system(path, "give the socket its mode"))?; }/s' o_04
switch o03-whatever-is-there src/server/bind.rs 's/(fn probe\(path: &Path\) -> Result<\(\), BindError> \{)/$1 if '"$(off o03-whatever-is-there)"' { return Ok(()); }/' o_03_what_is
switch p12-connections-unlimited src/server/accept.rs 's/Permits::new\(shared\.settings\.max_connections\)/Permits::new(if '"$(off p12-connections-unlimited)"' { 100_000 } else { shared.settings.max_connections })/' p_12
switch p12-no-rest src/server/accept.rs 's/\(\) = sleep\(REST\) =>/() = async { if !'"$(off p12-no-rest)"' { sleep(REST).await } } =>/' p_12_no
switch p01-silent-for-ever src/server/peer.rs 's/crowd\.wanted\(settings\.handshake_timeout\)/crowd.wanted(settings.handshake_timeout * if '"$(off p01-silent-for-ever)"' { 10_000 } else { 1 })/' p_01
switch p01-half-a-greeting src/server/peer.rs 's/Deadline::after\(settings\.handshake_timeout\)/Deadline::after(settings.handshake_timeout * if '"$(off p01-half-a-greeting)"' { 10_000 } else { 1 })/' p_01
switch p02-slow-for-ever src/server/peer.rs 's/let limit = connection\.shared\(\)\.settings\.frame_timeout;/let limit = connection.shared().settings.frame_timeout * if '"$(off p02-slow-for-ever)"' { 10_000 } else { 1 };/' p_02
switch p02-announced-is-believed src/server/peer.rs 's/(let read = self\.reader\.read_buf\(&mut self\.buffer\);)/if '"$(off p02-announced-is-believed)"' \&\& self.buffer.len() >= 4 { self.buffer.resize(4 << 20, 0); self.buffer.truncate(5); } $1/' p_02
switch p10-writes-for-ever src/server/peer.rs 's/Box::pin\(sleep\(limit\)\)/Box::pin(sleep(limit * if '"$(off p10-writes-for-ever)"' { 10_000 } else { 1 }))/' p_10_a_flood
switch p10-unsent-unbounded src/server/connection.rs 's/state\.unsent\.len\(\) <= MAX_UNSENT_BYTES/('"$(off p10-unsent-unbounded)"' || state.unsent.len() <= MAX_UNSENT_BYTES)/' p_10_a_flood
switch p13-streams-unbounded src/server/grpc/mod.rs 's/\.max_concurrent_streams\(MAX_STREAMS\)/.max_concurrent_streams(if '"$(off p13-streams-unbounded)"' { 100_000 } else { MAX_STREAMS })/' p_13
switch p01-grpc-silent src/server/grpc/mod.rs 's/signals\.crowd\.wanted\(settings\.handshake_timeout\)/signals.crowd.wanted(settings.handshake_timeout * if '"$(off p01-grpc-silent)"' { 10_000 } else { 1 })/' a_silent

# What a peer may send.
switch p03-any-length src/protocol/wire/frame.rs 's/if length > self\.max_bytes\(\) \{/if !'"$(off p03-any-length)"' \&\& length > self.max_bytes() {/' p_03
switch p03-empty-frames src/protocol/wire/frame.rs 's/Self::V2 if length == 0 => Err/Self::V2 if length == 0 \&\& !'"$(off p03-empty-frames)"' => Err/' p_03
switch p04-any-type src/server/receive.rs 's/RequestType::from_byte\(other\)\.ok_or\(Violation::Type\(other\)\)\?/match RequestType::from_byte(other) { None if '"$(off p04-any-type)"' => return Ok(()), known => known.ok_or(Violation::Type(other))? }/' p_04
switch p05-unreadable-allowed src/server/receive.rs 's/let handled = shared\n\s+\.policy\(\)\n\s+\.refuse\(Fault::new\(FaultCode::BadEvent\(bad\.what\), bad\.at\)\);/let handled = if '"$(off p05-unreadable-allowed)"' { shared.policy().pass() } else { shared.policy().refuse(Fault::new(FaultCode::BadEvent(bad.what), bad.at)) };/' p_05
switch p06-any-depth src/protocol/wire/event.rs 's/reader\.set_max_depth\(MAX_MESSAGE_PACK_DEPTH\)/reader.set_max_depth(if '"$(off p06-any-depth)"' { usize::MAX } else { MAX_MESSAGE_PACK_DEPTH })/' p_05
switch p08-status-cut src/protocol/grpc/mod.rs 's/u16::try_from\(sent\.status_code\) else/u16::try_from(if '"$(off p08-status-cut)"' { sent.status_code \& 0xffff } else { sent.status_code }) else/' numbers
switch p08-port-unchecked src/protocol/grpc/mod.rs 's/if u16::try_from\(metadata\.client_port\)\.is_err\(\)/if !'"$(off p08-port-unchecked)"' \&\& u16::try_from(metadata.client_port).is_err()/' numbers
switch p09-both-answered src/server/connection.rs 's/(pub\(crate\) fn begin\(.*?)state\.in_flight\.retain\(\|ticket\| ticket\.key != key\);/$1if !'"$(off p09-both-answered)"' { state.in_flight.retain(|ticket| ticket.key != key); }/s' p_09
switch p10-in-flight-unlimited src/server/connection.rs 's/let room = state\.in_flight\.len\(\) <=/let room = '"$(off p10-in-flight-unlimited)"' || state.in_flight.len() <=/' p_10_too_many
switch p10-queue-unlimited src/server/queue.rs 's/let is_full = state\.jobs\.len\(\) >= self\.max \|\|/let is_full = state.jobs.len() >= self.max \&\& !'"$(off p10-queue-unlimited)"' ||/' p_10_too_many
switch p10-queued-bytes-unlimited src/server/queue.rs 's/bytes > self\.max_bytes;/bytes > self.max_bytes \&\& !'"$(off p10-queued-bytes-unlimited)"';/' p_10_bodies
switch p10-waits-for-ever src/server/queue.rs 's/after\(job\.queued\(\), self\.wait\)/after(job.queued(), self.wait * if '"$(off p10-waits-for-ever)"' { 100 } else { 1 })/; s/job\.queued\(\)\.elapsed\(\) > self\.wait/job.queued().elapsed() > self.wait * if '"$(off p10-waits-for-ever)"' { 100 } else { 1 }/' p_10_overload
switch p15-cancels-unheard src/server/connection.rs 's/(pub\(crate\) fn cancel\(&self, correlation_id: &str\) \{)/$1 if '"$(off p15-cancels-unheard)"' { return; }/' p_15
switch p15-runs-on src/server/job.rs 's/if !self\.connection\.is_awaited\(self\.ticket\) \{/if !'"$(off p15-runs-on)"' \&\& !self.connection.is_awaited(self.ticket) {/' p_15

# Operators.
switch o02-said-and-not-done src/server/live.rs 's/(self\.note_tighter\(pushed, not_applied\);\n\s+)self\.replace\(Arc::new\(policy\)\);/$1if !'"$(off o02-said-and-not-done)"' { self.replace(Arc::new(policy)); }/' o_02
switch o02-unknown-settings src/server/pushed.rs 's/\.map\(\|\(key, value\)\| Setting::read\(key\.parse\(\)\?, value\)\)/.filter(|(key, _)| !'"$(off o02-unknown-settings)"' || key.parse::<Key>().is_ok()).map(|(key, value)| Setting::read(key.parse()?, value))/' o_02
switch o02-looser src/server/pushed.rs 's/setting\.looseness\(\) > bound\.looseness\(\)/!'"$(off o02-looser)"' \&\& setting.looseness() > bound.looseness()/' what_would_loosen
switch o02-nobody-woken src/server/live.rs 's/server\.queue\.pool_changed\(\);/if !'"$(off o02-nobody-woken)"' { server.queue.pool_changed(); }/' an_event_that_waits
switch o05-no-smoke-call src/server/loader.rs 's/if self\.smoke_call \{/if self.smoke_call \&\& !'"$(off o05-no-smoke-call)"' {/' o_05
switch o06-old-one-goes-on src/server/live.rs 's/while Arc::strong_count\(&old\) > 1/while !'"$(off o06-old-one-goes-on)"' \&\& Arc::strong_count(\&old) > 1/' o_06_a_running
switch o07-drops-what-it-has src/server/peer.rs 's/connection\.finish\(\);\n\s+poll_fn\(\|context\| answers\.poll_send\(context\)\)\.await;/connection.finish(); if !'"$(off o07-drops-what-it-has)"' { poll_fn(|context| answers.poll_send(context)).await; }/' o_07
switch o07-grace-for-ever src/server/accept.rs 's/tokio::time::timeout\(grace, /tokio::time::timeout(grace * if '"$(off o07-grace-for-ever)"' { 1000 } else { 1 }, /' o_07_the_grace
switch o13-always-healthy src/server/live.rs 's/(pub\(crate\) fn say_faulty\(&self, what: Option<String>\) \{)/$1 if '"$(off o13-always-healthy)"' { return; }/' o_13
switch log-ids-raw src/server/mod.rs 's/(if let Some\(fault\) = &sent\.fault.*?)correlation_id = printable\(correlation_id, 128\)/$1correlation_id = if '"$(off log-ids-raw)"' { correlation_id.to_owned() } else { printable(correlation_id, 128) }/s' log_lines
switch log-lines-unlimited src/log_limiter.rs 's/< PER_SECOND;/< PER_SECOND || '"$(off log-lines-unlimited)"';/' a_flood_of_faults
switch empty-body-in-silence src/protocol/outgoing/rules.rs 's/if is_empty\n/if is_empty \&\& !'"$(off empty-body-in-silence)"'\n/' an_empty

# Bodies in chunks.
switch body-any-size src/policy/bodies.rs 's/if size\.max\(announced\) > max_bytes \{/if size.max(announced) > max_bytes \&\& !'"$(off body-any-size)"' {/' bodies::limits
switch body-with-a-gap src/policy/bodies.rs 's/if !self\.goes_on\(chunk, size\) \{/if !self.goes_on(chunk, size) \&\& !'"$(off body-with-a-gap)"' {/' bodies::limits
switch body-replaced-in-part src/policy/bodies.rs 's/if chunks > 1 && answer\.passes\(\)/if chunks > 1 \&\& !'"$(off body-replaced-in-part)"' \&\& answer.passes()/' bodies::limits
switch body-flag-first src/policy/bodies.rs 's/match module\.wants_whole_bodies\(\) \{/match module.wants_whole_bodies().filter(|_| !'"$(off body-flag-first)"') {/; s/const (fn mode_of)/$1/' bodies::limits
switch body-beginning-is-whole src/policy/bodies.rs 's/if may_be_cut && /if may_be_cut \&\& !'"$(off body-beginning-is-whole)"' \&\& /' bodies::limits
switch bodies-unbounded src/server/exchanges/bodies.rs 's/while open\.bytes > self\.max_bytes \{/while open.bytes > self.max_bytes \&\& !'"$(off bodies-unbounded)"' {/' many_slow
switch bodies-unfinished-in-silence src/server/exchanges/bodies.rs 's/if !lock\(&self\.collector\)\.is_unfinished\(\) \{/if !lock(\&self.collector).is_unfinished() || '"$(off bodies-unfinished-in-silence)"' {/' never_ends
switch bodies-mixed src/server/exchanges.rs 's/(let is_single = .*?\n\s+)if joined\.is_unclear \{/$1if joined.is_unclear \&\& !'"$(off bodies-mixed)"' {/s' share_an_id
switch body-ids-used-up src/server/exchanges/group.rs 's/exchange\.response_done = kind\.is_request\(\);/exchange.response_done = kind.is_request() \&\& !'"$(off body-ids-used-up)"';/' without_a_head
switch chunks-anywhere src/server/job.rs 's/Some\(told\) => Wish::Same\(told\)/Some(told) => if '"$(off chunks-anywhere)"' { Wish::Any } else { Wish::Same(told) }/' bodies::
switch chunks-wait-in-vain src/server/job.rs 's/(let waits = self\.told\(\)\.is_some\(\)) &&/$1 \&\& !'"$(off chunks-wait-in-vain)"' \&\&/' bodies::moved
switch chunks-moved-in-silence src/policy/pool.rs 's/Picked::Gone => \(self\.free_place\(\)\?, None, true\)/Picked::Gone => (self.free_place()?, None, !'"$(off chunks-moved-in-silence)"')/' bodies::moved
switch chunks-moved-once src/policy/pool.rs 's/has_all: !self\.lacks_chunks,/has_all: !self.lacks_chunks || '"$(off chunks-moved-once)"',/' bodies::moved

# Old proxies.
switch challenge-let-through src/protocol/outgoing/rules.rs 's/if out\.is_unrepaired\(\) && matches!\(out\.answer\.decision, Decision::Challenge/if !'"$(off challenge-let-through)"' \&\& out.is_unrepaired() \&\& matches!(out.answer.decision, Decision::Challenge/' a_challenge

# What is written down.
switch record-secrets src/server/record.rs 's/\(_, true\) => Ok\(Redactor::keep_secrets\(\)\)/(_, true) => Ok(Redactor::keep_secrets()), _ if '"$(off record-secrets)"' => Ok(Redactor::keep_secrets())/' record
switch record-for-all-to-read src/server/record/file.rs 's/options\.mode\(0o600\)/options.mode(if '"$(off record-for-all-to-read)"' { 0o644 } else { 0o600 })/; s/if metadata\.permissions\(\)\.mode\(\) & 0o077 != 0 \{/if !'"$(off record-for-all-to-read)"' \&\& metadata.permissions().mode() \& 0o077 != 0 {/' record
switch record-unbounded src/server/record/writer.rs 's/let room = self\.max_bytes\.saturating_sub\(size\);/let room = if '"$(off record-unbounded)"' { u64::MAX } else { self.max_bytes.saturating_sub(size) };/' record
switch record-full-for-good src/server/record/writer.rs 's/State::Full\(full\) if size < full =>/State::Full(full) if size < full \&\& !'"$(off record-full-for-good)"' =>/' rotation
switch record-failed-for-good src/server/record/writer.rs 's/retry_at: now \+ RETRY_AFTER,/retry_at: now + RETRY_AFTER * if '"$(off record-failed-for-good)"' { 100_000 } else { 1 },/' rotation
switch record-not-followed src/server/record/file.rs 's/(fn ready\(&mut self\) -> io::Result<u64> \{)/$1 if '"$(off record-not-followed)"' { return Ok(self.size); }/' rotation
switch record-torn-line src/server/record/file.rs 's/if whole < done \{/if whole < done \&\& !'"$(off record-torn-line)"' {/' rotation
switch record-moved-is-lost src/server/record/file.rs 's/let can_stay = was_moved/let can_stay = !'"$(off record-moved-is-lost)"' \&\& was_moved/' rotation
switch record-foreign-file src/server/record/file.rs 's/if there\.len\(\) >= self\.size/if ('"$(off record-foreign-file)"' || there.len() >= self.size)/' rotation
switch record-written-too-soon src/server/record/writer.rs 's/(let end = self\.batch\.bytes\.len\(\);)/$1 if '"$(off record-written-too-soon)"' { self.counts.written.fetch_add(1000, Ordering::Relaxed); }/' what_counts
switch record-unasked-unlearnt src/server/connection.rs 's/if source\.is_none\(\)\n/if source.is_none() \&\& !'"$(off record-unasked-unlearnt)"'\n/' record
switch record-no-regular-file src/server/record/file.rs 's/if !metadata\.is_file\(\) \{/if !metadata.is_file() \&\& !'"$(off record-no-regular-file)"' {/' record

if [ "$only_stale" ]; then
    echo "$stale switches are stale"
    exit "$([ "$stale" -eq 0 ] && echo 0 || echo 1)"
fi
log=$copy/log
if ! nice -n 5 cargo test --quiet --no-run --test serve >"$log" 2>&1; then
    cat "$log"
    echo 'the copy with all switches does not build'
    exit 2
fi
ran=0
bad=$stale
while read -r name tests; do
    if [ "$wanted" ]; then
        chosen=
        for part in $wanted; do
            case $name in *"$part"*) chosen=yes ;; esac
        done
        [ "$chosen" ] || continue
    fi
    ran=$((ran + 1))
    started=$(date +%s)
    # Half of them hang where a limit in time is gone: that is caught, too.
    if WASM_AGENT_MUTANT=$name timeout 150 cargo test --quiet --test serve "$tests" </dev/null >"$log" 2>&1; then
        verdict=SURVIVED
        bad=$((bad + 1))
    else
        verdict=caught
    fi
    by=$(sed -n 's/^    \([a-z_]*::\)*\([a-z0-9_]*\)$/\2/p' "$log" | sort -u | tr '\n' ' ')
    printf '%-9s %-28s %3ss  %s\n' "$verdict" "$name" $(($(date +%s) - started)) "$by"
done <"$list"
echo "$ran switches, $bad of them not caught"
[ "$ran" -gt 0 ] && [ "$bad" -eq 0 ]
