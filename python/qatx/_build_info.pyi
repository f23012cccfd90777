# The build writes _build_info.py.
VERSION: str
TORCH_VERSION: str
