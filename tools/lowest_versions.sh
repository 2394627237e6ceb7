#!/usr/bin/env bash
# Runs the core of the suite on the lowest TensorFlow, Keras and NumPy that setup.cfg declares.
#
#   tools/lowest_versions.sh                      # everything, into /tmp/tfp_flows-lowest
#   tools/lowest_versions.sh DIR tests/bijectors  # another folder for the environment; some tests
#
# The versions are read from setup.cfg, so that they cannot differ. The environment is made once (a
# download of about 600 MB) and used again for as long as those lines of setup.cfg stay as they are.
# PYTHON names the interpreter, python3 unless it is given: one that the lowest versions have wheels
# for, 3.10 to 3.12.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-/tmp/tfp_flows-lowest}
[ $# -gt 0 ] && shift
tests=("$@")
if [ ${#tests[@]} -eq 0 ]; then
  # Neither the examples nor the converters, which bring requirements of their own.
  tests=(tests/bijectors tests/elementwise tests/conditioners tests/flows tests/models tests/saving
    tests/preprocessing tests/test_bijectors.py tests/test_masks.py)
fi

# "name>=1.2,<2" in install_requires becomes "name==1.2".
lowest=$(awk '/^install_requires/ {on = 1; next} /^[^ ]/ || /^$/ {on = 0}
  on && $1 !~ /^#/ {sub(/,.*/, ""); sub(/>=/, "=="); print $1}' setup.cfg)
for name in tensorflow tensorflow-probability keras numpy; do
  if ! grep -Eq "^$name(\[tf\])?==[0-9.]+$" <<< "$lowest"; then
    echo "lowest_versions.sh: setup.cfg declares no lowest $name as 'name>=version,<version'" >&2
    exit 1
  fi
done
stamp=$venv/installed-$(cksum <<< "$lowest" | tr ' ' '-')
if [ ! -e "$stamp" ]; then
  echo "Installing" $lowest "into $venv ..."
  "${PYTHON:-python3}" -m venv --clear "$venv"
  # NumPy's line holds for what the others ask of it, too. What the tests themselves need may be new.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    $lowest "pytest>=8" "scikit-learn>=1.4" "scipy"
  touch "$stamp"
fi

export PYTHONPATH=$PWD TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}
"$venv/bin/python" - <<'PY'
import platform

import keras, numpy, tensorflow, tensorflow_probability as tfp

print("Python", platform.python_version(), "TensorFlow", tensorflow.__version__, "Keras",
      keras.__version__, "NumPy", numpy.__version__, "TFP", tfp.__version__, flush=True)
PY
exec "$venv/bin/python" -m pytest -p no:cacheprovider --durations=5 "${tests[@]}"
