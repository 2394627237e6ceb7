# Sourced by tools/demo, tools/test and tools/site/build: makes .venv with an extra of this package.
# usage: . tools/venv.sh EXTRA
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
python=${PYTHON:-python3}
if [ ! -x .venv/bin/python ]; then
  "$python" -m venv .venv || exit 1
fi
# Installed once for each setup.cfg: a second run starts at once.
stamp=.venv/installed-$1-$(cksum < setup.cfg | tr ' ' '-')
if [ ! -e "$stamp" ]; then
  echo "Installing tfp_flows[$1] into .venv (TensorFlow is a download of about 600 MB) ..."
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$1]" || exit 1
  touch "$stamp"
fi
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}
