"""kafka-python in the interop test: 2.0.6, the last that can be told to talk as a
client of 0.8, and today's."""
import logging
import os
import sys

import kafka
from kafka import KafkaConsumer, KafkaProducer, TopicPartition, errors
from kafka.errors import CommitFailedError

import line

call = line.call()
old = call.mode == "0.8"
common = {"bootstrap_servers": call.bootstrap.split(",")}
if old:
    common["api_version"] = (0, 8, 0)
first = kafka.__version__.startswith("2.0.")
if first:
    from kafka.oauth.abstract import AbstractTokenProvider
else:
    from kafka.net.sasl.oauth import AbstractTokenProvider


class Token(AbstractTokenProvider):
    def token(self):
        return login["token"]


login = line.login()
if login:
    common.update(
        security_protocol="SASL_SSL", ssl_cafile=login["ca"], sasl_mechanism=login["mechanism"],
        sasl_plain_username=login["user"], sasl_plain_password=login["password"])
    if login["mechanism"] == "OAUTHBEARER":
        common["sasl_oauth_token_provider"] = Token()


class Refusal(logging.Handler):
    """Today's goes on trying and raises, much later, that there is no broker: what was wrong it only
    logs."""
    def emit(self, record):
        if "AuthenticationFailed" in record.getMessage():
            line.say("refused " + " ".join(record.getMessage().split()))
            os._exit(0)


def log_in():
    logging.getLogger("kafka").addHandler(Refusal())

    def enter():
        consumer = KafkaConsumer(group_id=None, **common)
        consumer.partitions_for_topic(call.topic)
        consumer.close()

    # 2.0 shakes hands at version 0, where the end of the connection says all there is to say.
    line.log_in(enter, (errors.AuthenticationFailedError, errors.NoBrokersAvailable) if first else errors.SaslAuthenticationFailedError)



def create():
    from kafka.admin import KafkaAdminClient, NewTopic

    admin = KafkaAdminClient(**common)
    if first:
        admin.create_topics([NewTopic(call.topic, int(call.argument), 3)])
    else:
        admin.create_topics({call.topic: {"num_partitions": int(call.argument), "replication_factor": 3}})
    admin.close()


def produce():
    codec = None if call.argument == "none" else call.argument
    more = {}
    if first:
        # Its defaults: acks=1, and to give up at the first error.
        more = {"acks": 1 if old else "all", "retries": 1_000_000}
    producer = KafkaProducer(compression_type=codec, **more, **common)
    sent = []
    for key, value in line.records():
        if old:
            sent.append(producer.send(call.topic, key=key, value=value))
        else:
            sent.append(producer.send(call.topic, key=key, value=value, headers=line.HEADERS))
    producer.flush()
    for future in sent:
        future.get(timeout=60)
    producer.close()
    line.say("produced %d" % len(sent))


def transact():
    producer = KafkaProducer(transactional_id=call.argument, transaction_timeout_ms=30_000, **common)
    producer.init_transactions()
    for records, end in line.transactions():
        producer.begin_transaction()
        for future in [producer.send(call.topic, key=key, value=value) for key, value in records]:
            future.get(timeout=60)
        (producer.commit_transaction if end == "commit" else producer.abort_transaction)()
        line.over(end)
    producer.close()


def show(r):
    line.show(r.partition, r.offset, r.key, r.value, r.headers)


def read(**level):
    consumer = KafkaConsumer(group_id=None, **level, **common)
    parts = [TopicPartition(call.topic, p) for p in sorted(consumer.partitions_for_topic(call.topic))]
    consumer.assign(parts)
    consumer.seek_to_beginning(*parts)
    n = 0
    while n < int(call.argument):
        for records in consumer.poll(timeout_ms=300).values():
            for r in records:
                n += 1
                show(r)
    line.flush()
    consumer.close()


def group():
    ended = line.ended()
    consumer = KafkaConsumer(call.topic, group_id=call.argument, auto_offset_reset="earliest", enable_auto_commit=False, **common)
    while not ended.is_set():
        polled = consumer.poll(timeout_ms=300)
        for records in polled.values():
            for r in records:
                show(r)
        line.flush()
        if polled:
            try:
                consumer.commit()
            except CommitFailedError as e:
                print("commit:", e, file=sys.stderr)
    consumer.close()
    line.say("closed")


{"login": log_in, "create": create, "produce": produce, "read": read, "transact": transact,
 "committed": lambda: read(isolation_level="read_committed"), "group": group}[call.step]()
