"""The types of the settings: choices, bounds, and text with a form of its own.

Values beyond the bounds would be accepted here and end a worker later: timers, the Redis clock and
Kafka's 32-bit sizes have limits.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator

from stream_app.settings import checks

MAX_DEADLINE = 90.0
"""Seconds. Partitions cannot be reassigned while one of their queries is open."""
MAX_EXACT = 2**53 - 1
"""Redis scripts and floats count exactly up to here."""
MAX_EVENT_BYTES = 256 << 20
"""Four times this must fit in Kafka's signed 32 bits; Redis takes values of up to 512 MiB."""
MAX_TOKENS = 1 << 24
"""More than the window of any model. `Method.fit` refuses sizes that do not fit the real one."""
WEEK, YEAR = 7 * 86_400, 365 * 86_400

Format = Literal["lines", "cri", "json", "msgpack"]
KeyFormat = Literal["utf8", "hex", "long", "int", "uuid", "none"]
Encoding = Literal["strict", "replace"]
IsolationLevel = Literal["read_committed", "read_uncommitted"]
Unreadable = Literal["skip", "wait"]
SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
OnLag = Literal["triage", "wait"]
LogFormat = Literal["text", "json"]
MeasureName = Literal["auto", "entropy", "top_p", "likelihood", "hybrid", "fused"]
Dtype = Literal["", "float32", "bfloat16", "float16"]
KafkaAddress = Annotated[str, AfterValidator(checks.kafka_address)]
RedisAddress = Annotated[str, AfterValidator(checks.redis_address)]
RedisPrefix = Annotated[str, AfterValidator(checks.redis_prefix)]
Start = Annotated[str, AfterValidator(checks.start)]
RecordStart = Annotated[str, AfterValidator(checks.record_start)]
