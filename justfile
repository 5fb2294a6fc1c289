# What people here type often; `just --list` is the index.

# Everything CI runs.
ci:
    .ci/run

# Format and lint.
check:
    cargo fmt
    cargo clippy --all-targets -- -D warnings

# Known weaknesses of what we depend on; needs cargo-deny and the network.
advisories:
    cargo deny --locked check advisories

# All tests.
test:
    cargo test

# The showcase: the shipped module on the shipped fixtures.
demo:
    cargo run --release -- run fixtures/modules/rules/rules.wasm fixtures/events

# Our overhead beside raw wasmtime.
bench:
    cargo bench

# The Rust of the gRPC messages, after a change of `proto/agent_v2.proto`.
proto:
    cargo run --manifest-path proto/generate/Cargo.toml

# Write the README's output anew.
readme:
    README_BLESS=1 cargo test --test cli readme::

# Write the snapshots of help, reports and refusals anew; read the diff.
snapshots:
    INSTA_UPDATE=always cargo test --test cli snapshots::

# Every language from `new` to its fixtures, where the toolchain is here;
# `just languages --keep` replaces the committed modules.
languages *ARGS:
    cargo build
    WASM_AGENT="${CARGO_TARGET_DIR:-$PWD/target}/debug/wasm-agent" fixtures/modules/rebuild.sh {{ARGS}}

# What the one policy costs in each language, into the README.
costs:
    cargo build --release
    WASM_AGENT="${CARGO_TARGET_DIR:-$PWD/target}/release/wasm-agent" fixtures/modules/costs.py --write

# The agent behind real proxies (`e2e/run --build` once before).
e2e *PROXIES:
    cargo build
    e2e/run {{PROXIES}}

# The properties that CI tries some thousand times, a million times; an hour.
long:
    REFUSAL_TRIES=1000000 INTERLEAVINGS=1000000 cargo test --release --lib -- --nocapture damage_softens_no_refusal no_interleaving_confuses
    DAMAGE_TRIES=100000 cargo test --release --lib -- --nocapture what_is_damaged
    CHAIN_CASES=100000 cargo test --release --lib -- --nocapture the_whole_chain
    BODY_TRANSACTIONS=10000 cargo test --release --test serve -- --nocapture bodies::same

# Verdicts beside eight busy processes; `just busy 100` for 100 rounds.
busy ROUNDS="20":
    BUSY_ROUNDS={{ROUNDS}} cargo test --test cli busy:: -- --ignored --test-threads 1

# One fuzz target on its seeds (see fuzz/README.md); needs nightly and cargo-fuzz.
fuzz TARGET *ARGS:
    mkdir -p fuzz/corpus/{{TARGET}}
    cargo +nightly fuzz run -s none {{TARGET}} fuzz/corpus/{{TARGET}} fuzz/seeds/{{TARGET}} -- -max_total_time=120 -timeout=10 {{ARGS}}

# Protections taken out one at a time, which tests must notice; hours.
mutants *NAMES:
    CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/mutants" tests/mutants.sh {{NAMES}}
    CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/mutants" tests/mutants_serve.sh {{NAMES}}
