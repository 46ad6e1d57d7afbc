"""Small copies of the benchmarks in the schema and folder layout of the hub, filled with texts that may be shipped."""

from tests.data.benchmarks.author_copies import *  # noqa: F403
from tests.data.benchmarks.file_copies import *  # noqa: F403
from tests.data.benchmarks.knowledge_copies import *  # noqa: F403
from tests.data.benchmarks.people_copies import *  # noqa: F403
from tests.data.benchmarks.writing import *  # noqa: F403
