"""Asking the source questions side by side, with the answers and the requests for them recorded."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import run_ledger
from pipeline.runs import Run, transact
from pipeline.session import Session

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Recorded = TypeVar("Recorded")


def ask_each(
    session: Session,
    run: Run,
    questions: Iterable[Question],
    ask: Callable[[Source, Question], Answer],
    record: Callable[[Account, Answer], Recorded],
) -> list[Recorded]:
    """Ask each question, and return what `record` returns of the answers, in the order of the questions.

    An answer and the requests for it are recorded at once, in one transaction, so that a run that resumes need not ask
    again for what `record` stores.
    Raises the first error of `ask`, whose requests are not recorded.
    """

    def answer_to(question: Question) -> Recorded:
        session.stop.check()
        with session.source() as source:
            before = source.traffic
            answer = ask(source, question)
            sent = source.traffic.since(before)

        def recorded(account: Account) -> Recorded:
            run_ledger.add_requests(account, run.id, sent)
            return record(account, answer)

        return transact(session, run, recorded)

    with ThreadPoolExecutor(session.worker_count()) as pool:
        return list(pool.map(answer_to, questions))
