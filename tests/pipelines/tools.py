"""Where the programs are that only the tests of pipelines need. `make pipeline-tools` installs them."""

import os
import shutil
from pathlib import Path

from resources.settings import project_root

TOOLS = project_root() / ".cache" / "pipelines"
NODE = TOOLS / "node_modules" / "node" / "bin"
GITLAB = TOOLS / "node_modules" / ".bin" / "gitlab-ci-local"
SCHEMAS = TOOLS / "schemas" / "bin" / "check-jsonschema"

NO_GITLAB = f"needs {GITLAB.relative_to(project_root())}: run `make pipeline-tools`, which needs npm; and rsync"
NO_SCHEMAS = f"needs {SCHEMAS.relative_to(project_root())}: run `make pipeline-tools`"
NO_GROOVY = "needs the Debian package groovy"


def has_gitlab() -> bool:
    """Whether gitlab-ci-local can run."""
    return GITLAB.exists() and shutil.which("rsync") is not None


def java_home() -> dict[str, str]:
    """The variable that the program groovy reads; some machines set it to a folder that does not exist."""
    java = shutil.which("java")
    return {"JAVA_HOME": str(Path(os.path.realpath(java)).parents[1])} if java else {}
