#!/usr/bin/env bash
# Uses every project in plugins/ as its users do, dropped in and installed as a wheel in a fresh environment, and shows
# that the core was not edited for it.  Run it in an environment with the extra `dev`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unset PYTHONPATH VILAMP_PLUGIN_PATH

# Shows what a command says only where it fails.
quietly() {
    "$@" > "$scratch/log" 2>&1 || { cat "$scratch/log" >&2; return 1; }
}

# Two steps on four videos with every plugin that brings a selector or a merger; the arguments are the command.
short_run() {
    local settings=(
        trainer.max_epochs=1 +trainer.limit_train_batches=2 data.batch_size=1 data.num_workers=0 logger=csv
        data.generate.train_videos=2 data.generate.val_videos=2 data.generate.max_seconds=64
        data.generate.progress=false "paths.data_dir=$scratch/data" "paths.output_root=$scratch/outputs"
    )
    local file option
    for file in "$root"/plugins/*/conf/{selector,merger}/*.yaml; do
        [[ -e $file ]] || continue
        option="$(basename "$(dirname "$file")")=$(basename "$file" .yaml)"
        quietly "$@" "$option" "${settings[@]}"
        echo "trained with $option"
    done
}

echo "-- dropped in"
short_run python train.py

echo "-- as wheels"
projects=(plugins/*/pyproject.toml)
for project in . "${projects[@]%/pyproject.toml}"; do
    quietly python -m build --no-isolation --wheel --outdir "$scratch/wheels" "$project"
    echo "built $project"
done
# The libraries are those of this environment, seen but not copied.  Its editable vilamp is not: a .pth file that is
# found on a path which a .pth file adds is not read.
libraries=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
python -m venv --without-pip "$scratch/venv"
fresh=$scratch/venv/bin
echo "$libraries" > "$("$fresh/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/libraries.pth"
python -m pip --python "$fresh/python" install --quiet --no-index --no-deps --ignore-installed "$scratch"/wheels/*.whl
python -m pip --python "$fresh/python" check

cd "$scratch" # outside the checkout: nothing of it may be found by chance
"$fresh/vilamp" plugins --json > listing.json
"$fresh/python" "$root/scripts/check_listing.py" listing.json "$root"/plugins/*/
for tests in "$root"/plugins/*/tests; do
    name=$(basename "$(dirname "$tests")")
    cp -r "$tests" "$scratch/tests-$name" # away from the sources, so that only the wheel can be imported
    "$fresh/python" -m pytest -q -W error -p no:cacheprovider "$scratch/tests-$name"
done
short_run "$fresh/vilamp" train

cd "$root"
echo "-- the core is as it was committed"
git diff --quiet -- vilamp conf
