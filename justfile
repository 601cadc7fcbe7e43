# What there is to run; `just --list` shows it.

# What CI runs: formatting, lints, documentation, all tests, and the checks with outside tools.
check:
    .ci/run

# The tests: `just test` for all stages, `just test fast` for those that need no broker.
test *STAGES:
    tests/run {{STAGES}}

# The checks with tools that are not ours: `just outside`, `just outside dockerfile`.
outside *CHECKS:
    tests/outside {{CHECKS}}

# No broker, no account: a simulated org, onboarded and offboarded.
demo:
    cargo run --release -- demo

# The inner loop: formatting, lints and the tests that need no broker.
quick:
    cargo fmt
    cargo clippy --all-targets --features chaos -- -D warnings
    tests/run fast

# How much of Okta's quota is used, in virtual time, with all seeds: writes docs/quota.md (some twenty minutes).
quota:
    QUOTA=all cargo test --release --test quota -- --nocapture

# All that is broken on purpose, the long forms too: writes docs/chaos.md (needs RabbitMQ).
chaos:
    tests/scenarios

# A cluster of three RabbitMQ nodes, each killed, restarted and cut off: writes docs/chaos.md (needs root; some fifteen minutes).
cluster *WORDS:
    tests/cluster {{WORDS}}

# Everything that takes long: all that is broken on purpose, and a cluster.
full:
    tests/run
    tests/scenarios
    tests/cluster

# The most memory that `submit` takes for 100,000 rows, beside 1,000 (needs RabbitMQ; some minutes).
submit-memory:
    CHAOS=all cargo test --features chaos --test chaos a_hundred_times -- --nocapture

# Each guard against a trap of the client library taken out: its test must fail (needs RabbitMQ).
unguarded *NAMES:
    tests/unguarded {{NAMES}}

# The dependencies' licences, bans and sources (needs cargo-deny).
deny:
    cargo deny check bans licenses sources

# What the worker costs beside the thinnest loop that does the same (needs RabbitMQ; some five minutes).
bench:
    cargo bench --bench throughput

# The same by real workers over RabbitMQ, beside what others do (close to an hour; see docs/quota-real.md).
quota-real *FLAGS:
    cargo bench --bench quota -- {{FLAGS}}
