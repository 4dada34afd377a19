"""The server's side: a grid that turns a strategy's train exchange into a secure sum, and passes all else through."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from flwr.app import Error, Message, Metadata, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from secagg.arguments import check_threads
from secagg.cohort import Threat
from secagg.errors import InputError, SecAggError
from secagg.identity import Directory
from secagg.identity_files import read_directory
from secagg.integrations.flower import envelope as steps
from secagg.integrations.flower.agreement import Agreement, Terms
from secagg.integrations.flower.envelope import Envelope
from secagg.integrations.flower.node import DIRECTORY
from secagg.integrations.flower.round import Ahead, Beacon, Begun, RoundReport, SecureRound, reached
from secagg.integrations.flower.update import Model, mean_reply
from secagg.protocol import PartyOpening
from secagg.session.keeping import IN_MEMORY
from secagg.session.party import PartyLink
from secagg.session.server import ServerSession

if TYPE_CHECKING:
    from flwr.supercore.run import Run

_logger = logging.getLogger("flwr")


class SecAggGrid(Grid):
    """A grid whose train exchanges are secure sums; give it to an unmodified strategy in the place of Flower's own.

    The strategy sees a reply of each client in the sum. All hold the same arrays: the model plus the weighted mean
    update. Of the weights it sees the total alone, in the first reply; the others have 0, so that the strategy's own
    weighted averaging returns the arrays unchanged to the last bit. It sees an error in the place of every other
    node's reply, and errors alone where the round gave no sum: then it leaves its model as it was.

    So nothing that a strategy does to single replies has an effect: Flower's server-side differential privacy clips no
    client and so gives none, and trimmed means, Krum and Bulyan withstand nobody (docs/flower.md).

    Args:
        grid: Flower's.
        threat: ``semi-honest``, or ``malicious-server`` where every node has an identity.
        directory: in the malicious-server model, and for protocols that sign in every model, the identities of the
            whole cohort: a ``Directory``, its JSON text, or the path of its file; by default ``secagg-directory`` of
            the run's configuration as it was started.
        parties: a link to each further party that the protocol has, by name: a homomorphic sum's ``decryptor``.
        beacon: session_id -> at least 16 public bytes, the same that the clients get; for sparse graphs against a
            malicious server alone.
        stage_timeout: seconds that an exchange without training may take; the strategy's ``timeout`` holds for the one
            with training. A node that is silent longer has dropped out.
        threads: how many threads share the unmasking.
        **terms: see ``Agreement``; the same as the clients'.

    As a context manager it closes itself; see ``close``, which pipelined rounds and those of one exchange need.

    Attributes:
        rounds: a report of each train exchange, in order.

    Raises:
        ParameterError: a term lies outside its range, or does not hold in the threat model.
        InputError: another argument is not as described; or a link to a party is missing, or to none of this protocol.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        threat: Threat = "semi-honest",
        directory: Directory | Path | str | None = None,
        parties: Mapping[str, PartyLink] | None = None,
        beacon: Beacon | None = None,
        stage_timeout: float = 180.0,
        threads: int = 1,
        **terms: Unpack[Terms],
    ) -> None:
        check_threads(threads)
        if not stage_timeout > 0:
            raise InputError(f"stage_timeout must be positive, got {stage_timeout}")
        self._grid, self._threat, self._directory = grid, threat, directory
        self._beacon, self._stage_timeout, self._threads = beacon, stage_timeout, threads
        self._agreement = Agreement(**terms)
        self._agreement.check_threat(threat)
        self._identified = self._agreement.wing.identified(threat)
        self._parties = _checked_parties(self._agreement, parties or {})
        self._ahead: Ahead | None = None
        self._resting: dict[int, Metadata] = {}
        self._warned = False
        self.rounds: list[RoundReport] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def close(self) -> None:
        """Have the nodes forget what they keep of the last round, or began ahead, and wait until they have.

        Without it each node of a pipelined run, or of one whose rounds take one exchange, keeps that state. Nodes that
        do not answer are counted in the log alone. Another train exchange may follow all the same.
        """
        ahead, resting = self._ahead, self._resting
        self._ahead, self._resting = None, {}
        told = _dismissals((resting if ahead is None else {**resting, **ahead.asked}).values())
        if not told:
            return
        try:
            replies = list(self._grid.send_and_receive(told, timeout=self._stage_timeout))
        except Exception as problem:
            # It ends a with block, whose own exception must not be hidden
            _logger.warning("secure aggregation: nodes may keep a state: %s", type(problem).__name__)
            return
        silent = len(told) - sum(not reply.has_error() for reply in replies)
        if silent:
            _logger.warning("secure aggregation: %d of %d nodes may keep a state", silent, len(told))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Run a secure sum where the messages ask for training; else pass them through.

        Raises:
            InputError: train messages differ in more than their destination, are mixed with others, or do not hold one
                record of float arrays: no cohort could sum what they ask for. Or there is no directory where one is
                needed, or a party is set up for other rounds.
        """
        messages = list(messages)
        training = [steps.is_train(message) for message in messages]
        if not any(training):
            return self._grid.send_and_receive(messages, timeout=timeout)
        if not all(training):
            raise InputError("train messages cannot be sent together with others")
        return self._train(messages, timeout)

    def _train(self, messages: Sequence[Message], timeout: float | None) -> list[Message]:
        model, content = Model.take_from(messages[0].content), _common_content(messages)
        if not self._warned:
            # The grid cannot see which strategy it is given to
            self._warned = True
            _logger.warning(
                "secure aggregation: the strategy sees the cohort's mean alone: server-side clipping gives no "
                "differential privacy here, and robust strategies (trimmed mean, Krum, Bulyan) withstand nobody"
            )
        metas = {int(message.metadata.dst_node_id): message.metadata for message in messages}
        directory = self._cohort() if self._identified else None
        # Who is invited anew replaces its state; the others would keep theirs
        self._dismiss(meta for node, meta in self._resting.items() if node not in metas)
        try:
            ahead = self._begun_ahead(messages, model)
            begun = ahead or self._begin(messages, model, self._agreement.context(content), directory)
        except InputError:
            raise
        except SecAggError as problem:
            if self._agreement.pipelined or self._resting:
                # No invitation replaces what the last round left, or began ahead
                self._dismiss(metas.values())
            self._resting = {}
            failure = f"{type(problem).__name__}: {problem}"
            return self._failed(messages, RoundReport(nodes=len(messages), failure=failure))
        self._resting = {}
        one = SecureRound(
            begun,
            messages,
            content=content,
            identified=self._identified,
            send=lambda sent, training: self._grid.send_and_receive(
                sent, timeout=timeout if training else self._stage_timeout
            ),
            beacon=self._beacon,
            prepare=self._preparing(begun, messages, content) if self._agreement.pipelined else None,
            joined=ahead is not None,
            threads=self._threads,
        )
        try:
            result = one.run()
        except SecAggError:
            self._dismiss(metas.values())
            return self._failed(messages, one.report)
        except BaseException:
            self._dismiss(metas.values())
            self.rounds.append(one.report)
            raise
        self._settle(one, metas)
        return self._replies(messages, model, result, one)

    def _settle(self, one: SecureRound, metas: Mapping[int, Metadata]) -> None:
        """After a sum, have those forget the round whose own last answer did not end it; keep what began ahead."""
        complete = one.ahead is not None and not one.ahead.begun.session.waiting_for
        self._ahead = one.ahead if complete else None
        self._resting = {node: metas[node] for node in one.resting}
        # Where one's keys are missing the next round begins anew, and nobody's serve
        left = metas if self._agreement.pipelined and not complete else one.unfinished
        self._dismiss(metas[node] for node in sorted(left))

    def _failed(self, messages: Sequence[Message], report: RoundReport) -> list[Message]:
        self.rounds.append(report)
        _logger.error("secure aggregation: no sum: %s", report.failure)
        return [_error(message, f"no sum: {report.failure}", report) for message in messages]

    def _preparing(self, begun: Begun, messages: Sequence[Message], content: bytes) -> Callable[[bytes], Ahead]:
        """Return what begins the round after this one, for the same nodes and a model of the same size."""
        asked = {int(message.metadata.dst_node_id): message.metadata for message in messages}

        def prepare(session_id: bytes) -> Ahead:
            following = self._agreement.following(content, session_id)
            context = self._agreement.context(following)
            return Ahead(
                begun=self._opened(begun.session.params, list(asked), context, None), asked=asked, content=following
            )

        return prepare

    def _begun_ahead(self, messages: Sequence[Message], model: Model) -> Begun | None:
        """Return what the last round began, if it is for these nodes and a model of this size."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        nodes = {int(message.metadata.dst_node_id) for message in messages}
        fits = len(messages) == len(nodes) and nodes == set(ahead.asked)
        if fits and ahead.begun.session.params == self._plan(len(nodes), model):
            return ahead.begun
        # Who is invited anew replaces its state; the others would keep theirs
        self._dismiss(meta for node, meta in ahead.asked.items() if node not in nodes)
        return None

    def _begin(self, messages: Sequence[Message], model: Model, context: bytes, directory: Directory | None) -> Begun:
        nodes = [int(message.metadata.dst_node_id) for message in messages]
        if len(set(nodes)) != len(nodes):
            raise InputError("a node is asked to train twice in one exchange")
        roster = nodes if directory is None else list(directory)
        return self._opened(self._plan(len(roster), model), roster, context, directory)

    def _opened(self, params: Any, roster: Sequence[int], context: bytes, directory: Directory | None) -> Begun:
        """Open a session, with what further parties begin it with. It dies with this process, and its round with it."""
        encoded, ids = params.encode(), tuple(sorted(roster))
        parties = {name: reached(name, link.begin, encoded, context, ids) for name, link in self._parties.items()}
        openings = {name: PartyOpening(one.opening, self._parties[name].identity) for name, one in parties.items()}
        credentials = self._agreement.wing.server_credentials(params, directory, openings)
        session = ServerSession(params, roster, context=context, keep=IN_MEMORY, credentials=credentials)
        return Begun(session=session, parties=parties)

    def _plan(self, clients: int, model: Model) -> Any:
        return self._agreement.plan(clients=clients, dimension=model.layout.size, threat=self._threat)

    def _cohort(self) -> Directory:
        given = self._directory
        if given is None:
            given = self._grid.run.override_config.get(DIRECTORY)
        if isinstance(given, Directory):
            return given
        if isinstance(given, Path):
            return read_directory(given)
        if isinstance(given, str):
            return Directory.from_json(given) if given.lstrip().startswith("{") else read_directory(Path(given))
        what = f"{self._agreement.protocol} ({self._threat})"
        raise InputError(f"{what} takes a directory of its clients, or {DIRECTORY} in the run's configuration")

    def _replies(self, messages: Sequence[Message], model: Model, result: Any, one: SecureRound) -> list[Message]:
        report = one.report
        self.rounds.append(report)
        timing = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in report.seconds.items())
        _logger.info(
            "secure aggregation: %d of %d nodes in the sum, %d exchanges: %s",
            len(report.survivors),
            report.nodes,
            report.exchanges,
            timing,
        )
        arrays, metrics = mean_reply(model, result.mean, self._agreement)
        weights = iter([result.weight])
        replies = []
        for message in messages:
            node = int(message.metadata.dst_node_id)
            if node not in report.survivors:
                replies.append(_error(message, "not in the sum", report))
                continue
            record = MetricRecord({self._agreement.weighted_by: next(weights, 0), **metrics})
            replies.append(Message(RecordDict({model.key: arrays, "metrics": record}), reply_to=message))
        return replies

    def _dismiss(self, metas: Iterable[Metadata]) -> None:
        """Tell nodes to forget a round; nobody waits for what they say."""
        told = _dismissals(metas)
        if not told:
            return
        try:
            self._grid.push_messages(told)
        except Exception as problem:
            # The round's failure is what the strategy must learn, not that a node did not learn of it
            _logger.warning("secure aggregation: nodes were not told to forget the round: %s", type(problem).__name__)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass messages on; those that ask for training go through ``send_and_receive`` alone.

        Raises:
            InputError: one asks for training, which clients refuse outside a secure sum.
        """
        messages = list(messages)
        if any(steps.is_train(message) for message in messages):
            raise InputError("train messages are sent with send_and_receive, which sums their replies securely")
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pass through."""
        return self._grid.pull_messages(message_ids)

    def set_run(self, run: Run) -> None:
        """Pass through."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """Flower's own."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Pass through."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Pass through."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[object]:
        """Pass through."""
        return self._grid.get_nodes()


def _checked_parties(agreement: Agreement, parties: Mapping[str, PartyLink]) -> Mapping[str, PartyLink]:
    needed = agreement.wing.parties
    for name in needed:
        if name not in parties:
            raise InputError(f"{agreement.protocol} needs a {name}: pass a link to it, parties={{{name!r}: ...}}")
    for name, link in parties.items():
        if name not in needed:
            raise InputError(f"{agreement.protocol} has no party {name!r}")
        if not isinstance(link, PartyLink):
            raise InputError(f"the link to the {name} must be a PartyLink, got {type(link).__name__}")
    return dict(parties)


def _dismissals(metas: Iterable[Metadata]) -> list[Message]:
    return [
        Message(
            Envelope(step=steps.DISMISS).put_into(RecordDict()),
            meta.dst_node_id,
            meta.message_type,
            ttl=meta.ttl,
            group_id=meta.group_id,
        )
        for meta in metas
    ]


def _common_content(messages: Sequence[Message]) -> bytes:
    """Return the digest of what all messages say; clients compare it with the message that they train on."""
    first = messages[0].metadata
    if any(steps.is_ours(key) for message in messages for key in message.content):
        raise InputError(f"records named {steps.PRESENT!r} are the secure sum's own")
    digests: dict[int, bytes] = {}
    for message in messages:
        # Strategies share one content among their messages: hash it once
        if id(message.content) not in digests:
            meta = message.metadata
            digests[id(message.content)] = steps.content_digest(meta.run_id, meta.message_type, message.content)
    if len(set(digests.values())) != 1 or any(m.metadata.message_type != first.message_type for m in messages):
        raise InputError("a secure sum needs the same train message for every node")
    return next(iter(digests.values()))


def _error(message: Message, reason: str, report: RoundReport) -> Message:
    told = report.faults.get(int(message.metadata.dst_node_id))
    text = f"secure aggregation: {reason}" + (f" ({told})" if told else "")
    return Message(Error(code=ErrorCode.UNKNOWN, reason=text), reply_to=message)
