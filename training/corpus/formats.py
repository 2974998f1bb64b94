"""The line formats that the bundled model is trained on, and what can be asked about each.

`{slot}` stands for a random entity. The slots of a phrase identify the line. A phrase that ends in
"?" is a whole question; any other names the wanted value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Ask:
    """What can be asked about a line: for the slot `answer`, in several phrases."""

    answer: str
    phrases: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The slots that must be known to ask."""
        return tuple(sorted(set(SLOT.findall(self.phrases[0]))))


@dataclass(frozen=True)
class Kind:
    """One kind of line of a format."""

    format: str
    line: str
    asks: tuple[Ask, ...]

    @property
    def slots(self) -> tuple[str, ...]:
        """The entities the line holds."""
        return tuple(dict.fromkeys(SLOT.findall(self.line)))

    def backward(self, ask: Ask) -> bool:
        """Whether the wanted value is before all that identifies it."""
        return self.slots.index(ask.answer) < min(map(self.slots.index, ask.keys))


def _kind(format: str, line: str, *asks: tuple[str, ...]) -> Kind:
    return Kind(format, line, tuple(Ask(ask[0], ask[1:]) for ask in asks))


KINDS = (
    _kind(
        "sshd",
        "{host} sshd[{pid}]: Accepted publickey for {user} from {ip} port {port} ssh2",
        ("ip", "the address {user} logged in from", "From which address did {user} log in?"),
        ("port", "the port {user} logged in from", "Which port was accepted for {user}?"),
        ("host", "the host {user} logged in to", "Where was {user} accepted?"),
    ),
    _kind(
        "sshd",
        "{host} sshd[{pid}]: Failed password for {user} from {ip} port {port} ssh2",
        ("ip", "the address that failed as {user}", "From which address did {user} fail?"),
        ("port", "the port of the failed login of {user}", "Which port failed for {user}?"),
    ),
    _kind(
        "sshd",
        "{host} sshd[{pid}]: Disconnected from user {user} {ip} port {port}",
        ("ip", "the address {user} left", "From which address did {user} disconnect?"),
        ("pid", "the process that {user} left", "Which process disconnected {user}?"),
    ),
    _kind(
        "nginx",
        '{ip} - - "GET {path} HTTP/1.1" {status} {size}',
        ("status", "the status of {path}", "With which status was {path} answered?"),
        ("size", "the size of {path}", "How many bytes did {path} have?"),
        ("ip", "the client of {path}", "Who asked for {path}?", "the address that got {path}"),
    ),
    _kind(
        "nginx",
        "[error] {pid}#0: *{num} upstream timed out, client: {ip}, upstream: {peer}:{port}",
        ("peer", "the upstream of client {ip}", "Which upstream timed out for {ip}?"),
        ("num", "the connection of client {ip}", "Which connection of {ip} timed out?"),
    ),
    _kind(
        "kafka",
        "INFO [GroupCoordinator {count}]: Group {group} with generation {num} is now empty",
        ("num", "the generation of group {group}", "In which generation was {group} empty?"),
        ("count", "the coordinator of group {group}", "Who coordinates {group}?"),
    ),
    _kind(
        "kafka",
        "INFO [Partition {topic} broker={count}] Log loaded with high watermark {num}",
        ("num", "the high watermark of {topic}", "Up to where was {topic} loaded?"),
        ("count", "the broker of {topic}", "Which broker has {topic}?"),
    ),
    _kind(
        "kafka",
        "INFO [GroupCoordinator {count}]: Member {member} in group {group} has failed",
        ("member", "the member of {group} that failed", "Who failed in group {group}?"),
    ),
    _kind(
        "hdfs",
        "{pid} INFO dfs.DataNode$PacketResponder: Received block {block} of size {size} from /{ip}",
        ("size", "the size of {block}", "How large was the received {block}?"),
        ("ip", "the sender of {block}", "Where did {block} come from?"),
    ),
    _kind(
        "hdfs",
        "{pid} INFO dfs.FSNamesystem: blockMap updated: {peer}:{port} is added to {block}",
        ("peer", "the node added to {block}", "Which node was added to {block}?"),
        ("port", "the port added to {block}", "Which port was added to {block}?"),
    ),
    _kind(
        "spark",
        "INFO Executor: Finished task {count} in stage {status} (TID {num}). {size} bytes sent",
        ("size", "the bytes sent by TID {num}", "How much did TID {num} send?"),
        ("count", "the task of TID {num}", "Which task was finished by TID {num}?"),
    ),
    _kind(
        "spark",
        "INFO MemoryStore: Block {rdd} stored as values (estimated size {amount}, free {free})",
        ("amount", "the estimated size of {rdd}", "How large is {rdd}?"),
        ("free", "the memory free after {rdd}", "How much was free when {rdd} was stored?"),
    ),
    _kind(
        "spark",
        "INFO BlockManagerInfo: Added {rdd} in memory on {host}:{port}",
        ("host", "the host that holds {rdd}", "Where was {rdd} added?"),
        ("port", "the port {rdd} was added on", "On which port was {rdd} added?"),
    ),
    _kind(
        "dpkg",
        "upgrade {package}:amd64 {old} {new}",
        ("new", "the version {package} was upgraded to", "To what was {package} upgraded?"),
        ("old", "the version of {package} before", "From what was {package} upgraded?"),
    ),
    _kind(
        "dpkg",
        "status installed {package}:amd64 {new}",
        ("new", "the installed version of {package}", "Which {package} was installed?"),
    ),
    _kind(
        "dpkg",
        "remove {package}:amd64 {old} <none>",
        ("old", "the removed version of {package}", "Which {package} was removed?"),
    ),
    _kind(
        "systemd",
        "{host} systemd[1]: {unit}.service: Main process exited, code=exited, status={count}",
        ("count", "the exit status of {unit}.service", "With which status did {unit} exit?"),
        ("host", "the host where {unit} exited", "Where did {unit} exit?"),
    ),
    _kind(
        "systemd",
        "{host} systemd[1]: {unit}.service: Consumed {size}ms CPU time",
        ("size", "the CPU time of {unit}.service", "How long did {unit} compute?"),
    ),
    _kind(
        "systemd",
        "{host} systemd-logind[{pid}]: New session {num} of user {user}",
        ("num", "the session of user {user}", "Which session did {user} open?"),
        ("pid", "the process that let {user} in", "Which process opened {user} a session?"),
    ),
    _kind(
        "talk",
        "{NAME}: I think {project} will cost {price} this year",
        ("price", "the cost of {project}", "How much will {project} cost?"),
        ("NAME", "the one who priced {project}", "Who said what {project} costs?"),
    ),
    _kind(
        "talk",
        "{NAME}: so we agreed that {name} takes over {project} from {day}",
        ("name", "the one taking over {project}", "Who takes over {project}?"),
        ("day", "the day {project} is taken over", "When is {project} taken over?"),
    ),
    _kind(
        "talk",
        "{NAME}: {name} will present {project} at {moment} , if that is fine",
        ("moment", "the time {project} is presented", "At what time is {project} shown?"),
        ("name", "the presenter of {project}", "Who will present {project}?"),
    ),
    _kind(
        "talk",
        "{NAME}: the code name for {name} 's team is {word} now",
        ("word", "the code name of {name} 's team", "What is {name} 's team called?"),
    ),
)
# Fields of a subject, by shape: "bare" is the shortest, and only used in the first steps.
PAIRS = ("bare", "app", "json", "syslog", "talk")
FORMATS = ("sshd", "nginx", "kafka", "hdfs", "spark", "dpkg", "systemd", "app", "json", "syslog")
ALL = (*FORMATS, "talk")
# Synonyms of fields that never occur in a line.
OTHER_WORDS = {
    "port": ("Where does {} listen?", "On what does {} accept connections?"),
    "latency": ("How slow is {}?", "How long does {} take to respond?"),
    "retries": ("How often did {} try again?",),
    "quota": ("How much may {} use?", "What is {} allowed at most?"),
    "balance": ("How much money has {}?",),
    "threads": ("How many workers does {} run?",),
    "size": ("How large is {}?", "How big is {}?"),
    "count": ("How many are there of {}?",),
    "weight": ("How heavy is {}?",),
    "price": ("What does {} cost?", "How expensive is {}?"),
    "delay": ("How late is {}?",),
    "load": ("How busy is {}?",),
    "memory": ("How much RAM has {}?",),
    "timeout": ("When does {} give up?",),
    "owner": ("Who owns {}?", "Whose is {}?", "To whom does {} belong?"),
    "region": ("In what part of the world is {}?", "Where is {}?"),
    "carrier": ("Who ships {}?", "Who delivers {}?"),
    "status": ("How is {} doing?", "In what state is {}?"),
    "leader": ("Who leads {}?", "Who is in charge of {}?"),
    "color": ("What does {} look like?",),
    "sponsor": ("Who pays for {}?",),
    "team": ("Who works on {}?",),
    "version": ("Which release does {} run?", "How new is {}?"),
}
