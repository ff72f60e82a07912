"""An archive of the classes of a local session. With it, the session starts in half the time.

The JVM maps the archive into memory instead of loading and verifying thousands of classes one by one (class data
sharing, JEP 350). ``make setup`` builds it. A JVM that the archive does not fit, for example because Java was updated,
ignores it (docs/decisions/0017).
"""

import os
import shutil
import sys
from pathlib import Path

from pyspark.find_spark_home import _find_spark_home

from userrep.ids import short_hash

QUIET = "-Xlog:cds=off -Xlog:cds+dynamic=off -Xlog:class+path=off"  # an archive that does not fit is no fault


def archive_of(class_path: str) -> Path:
    """Return the file of the archive of this environment's Java and Spark, and of a driver's extra class path."""
    java = Path(os.environ["JAVA_HOME"], "bin", "java") if os.environ.get("JAVA_HOME") else shutil.which("java")
    key = short_hash([Path(java or "java").resolve(), _find_spark_home(), class_path])
    return Path(sys.prefix, "share", "userrep", f"classes-{key}.jsa")


def archive_options(class_path: str) -> str:
    """Return the JVM options to use the archive; none if it has not been built."""
    archive = archive_of(class_path)
    return f'"-XX:SharedArchiveFile={archive}" {QUIET}' if archive.exists() else ""
