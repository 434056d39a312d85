#!/usr/bin/env bash
# Mutation testing of the modules that decide about energy and tokens, in a copy of the checkout.
# Fails when a mutant survives that tests/mutation-survivors.md does not name.
set -euo pipefail
cd "$(dirname "$0")/../.."
copy=var/mutate
rm -rf "$copy"
mkdir -p "$copy"
cp -r demo deploy tests pyproject.toml README.md LICENSE "$copy"
cp -r cloud "$copy/src"
export PATH="$PWD/.venv/bin:$PATH"
survivors="$PWD/tests/mutation-survivors.md"
cd "$copy"
mutmut run --max-children "${MUTATE_JOBS:-2}"
unexplained=0
while read -r name _; do
    grep -qF "\`${name%:}\`" "$survivors" && continue
    echo "survived, and tests/mutation-survivors.md does not say why: ${name%:}" >&2
    mutmut show "${name%:}" >&2 || true
    unexplained=1
done < <(mutmut results | grep -E ': (survived|no tests|suspicious)' || true)
exit $unexplained
