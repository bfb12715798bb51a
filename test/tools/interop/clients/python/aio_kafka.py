"""aiokafka in the interop test."""
import asyncio
import itertools
import logging
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.abc import AbstractTokenProvider
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from aiokafka.helpers import create_ssl_context

import line

call = line.call()
common = {"bootstrap_servers": call.bootstrap}


class Token(AbstractTokenProvider):
    async def token(self):
        return login["token"]


login = line.login()
if login:
    common.update(
        security_protocol="SASL_SSL", ssl_context=create_ssl_context(cafile=login["ca"]), sasl_mechanism=login["mechanism"],
        sasl_plain_username=login["user"], sasl_plain_password=login["password"])
    if login["mechanism"] == "OAUTHBEARER":
        common["sasl_oauth_token_provider"] = Token()


class Refusal(logging.Handler):
    """It raises that there is no broker: what was wrong it only logs."""
    why = ""

    def emit(self, record):
        if "AuthenticationFailed" in record.getMessage():
            self.why = " ".join(record.getMessage().split())


async def log_in():
    line.say("asking")
    refused = Refusal()
    logging.getLogger("aiokafka").addHandler(refused)
    producer = AIOKafkaProducer(**common)
    try:
        await producer.start()
    except KafkaError as e:
        # A token that is refused it takes for one that is not, and its connection ends at the next
        # request.
        if not refused.why and login["mechanism"] != "OAUTHBEARER":
            raise
        line.say("refused " + (refused.why or repr(e)))
    else:
        line.say("in")
    await producer.stop()


async def create():
    admin = AIOKafkaAdminClient(**common)
    await admin.start()
    answer = await admin.create_topics([NewTopic(call.topic, int(call.argument), 3)])
    await admin.close()
    for topic_error in answer.topic_errors:
        if topic_error[1]:
            sys.exit("create: %s" % (topic_error,))


async def produce():
    codec = None if call.argument == "none" else call.argument
    producer = AIOKafkaProducer(compression_type=codec, **common)
    await producer.start()
    source = line.records()
    sent = []
    while True:
        # stdin blocks, and the producer works in this thread.
        some = await asyncio.to_thread(lambda: list(itertools.islice(source, 500)))
        if not some:
            break
        for key, value in some:
            sent.append(await producer.send(call.topic, key=key, value=value, headers=line.HEADERS))
    await asyncio.gather(*sent)
    await producer.stop()
    line.say("produced %d" % len(sent))


async def transact():
    producer = AIOKafkaProducer(transactional_id=call.argument, transaction_timeout_ms=30_000, **common)
    await producer.start()
    source = line.transactions()
    while True:
        # stdin blocks, and the producer works in this thread.
        one = await asyncio.to_thread(lambda: next(source, None))
        if one is None:
            break
        records, end = one
        await producer.begin_transaction()
        sent = [await producer.send(call.topic, key=key, value=value) for key, value in records]
        await asyncio.gather(*sent)
        await (producer.commit_transaction() if end == "commit" else producer.abort_transaction())
        line.over(end)
    await producer.stop()


def show(records):
    for r in records:
        line.show(r.partition, r.offset, r.key, r.value, r.headers)


async def read(level="read_uncommitted"):
    consumer = AIOKafkaConsumer(call.topic, group_id=None, auto_offset_reset="earliest", isolation_level=level, **common)
    await consumer.start()
    n = 0
    while n < int(call.argument):
        for records in (await consumer.getmany(timeout_ms=300)).values():
            n += len(records)
            show(records)
    line.flush()
    await consumer.stop()


async def group():
    ended = line.ended()
    consumer = AIOKafkaConsumer(call.topic, group_id=call.argument, auto_offset_reset="earliest", enable_auto_commit=False, **common)
    await consumer.start()
    while not ended.is_set():
        polled = await consumer.getmany(timeout_ms=300)
        for records in polled.values():
            show(records)
        line.flush()
        if polled:
            try:
                await consumer.commit()
            except KafkaError as e:
                # A rebalance may come between reading and committing.
                print("commit:", repr(e), file=sys.stderr)
    await consumer.stop()
    line.say("closed")


asyncio.run({"login": log_in, "create": create, "produce": produce, "read": read, "transact": transact,
             "committed": lambda: read("read_committed"), "group": group}[call.step]())
