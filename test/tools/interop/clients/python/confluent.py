"""confluent-kafka, librdkafka for Python, in the interop test."""
import sys
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import line

call = line.call()
common = {"bootstrap.servers": call.bootstrap}
login = line.login()
if login:
    common.update({"security.protocol": "SASL_SSL", "ssl.ca.location": login["ca"], "sasl.mechanisms": login["mechanism"]})
    if login["mechanism"] == "OAUTHBEARER":
        common["oauth_cb"] = lambda _: (login["token"], time.time() + 3600)
    else:
        common.update({"sasl.username": login["user"], "sasl.password": login["password"]})


def log_in():
    wrong = []

    def enter():
        # librdkafka goes on trying, and tells each time.
        consumer = Consumer({"group.id": "unused", "error_cb": lambda e: wrong.append(e), **common})
        for _ in range(40):
            consumer.poll(0.1)
            for e in wrong:
                if e.code() == KafkaError._AUTHENTICATION:
                    raise KafkaException(e)
            try:
                consumer.list_topics(call.topic, timeout=0.5)
                return
            except KafkaException as e:
                if e.args[0].code() not in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT):
                    raise
        raise TimeoutError(wrong)

    line.log_in(enter, KafkaException)



def create():
    admin = AdminClient(common)
    for future in admin.create_topics([NewTopic(call.topic, int(call.argument), 3)]).values():
        future.result(60)


def produce():
    done = 0

    def delivered(error, _):
        nonlocal done
        if error:
            raise KafkaException(error)
        done += 1

    producer = Producer({"compression.type": call.argument, **common})
    for key, value in line.records():
        while True:
            try:
                producer.produce(call.topic, key=key, value=value, headers=line.HEADERS, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    producer.flush()
    line.say("produced %d" % done)


def show(m):
    line.show(m.partition(), m.offset(), m.key(), m.value(), m.headers())


def take(consumer):
    """Gives the records of one poll. Errors that librdkafka retries by itself are
    shown, others end the program."""
    out = []
    for m in consumer.consume(500, 0.3):
        if m.error():
            if m.error().fatal() or m.error().code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise KafkaException(m.error())
            print(m.error(), file=sys.stderr)
        else:
            out.append(m)
    return out


def transact():
    producer = Producer({"transactional.id": call.argument, "transaction.timeout.ms": 30_000, **common})

    def patiently(do):
        while True:
            try:
                return do()
            except KafkaException as e:
                # As its documentation says.
                if not e.args[0].retriable():
                    raise
                print("again:", e, file=sys.stderr)

    patiently(lambda: producer.init_transactions(60))
    for records, end in line.transactions():
        producer.begin_transaction()
        for key, value in records:
            producer.produce(call.topic, key=key, value=value)
        producer.flush()
        patiently(lambda: (producer.commit_transaction if end == "commit" else producer.abort_transaction)(60))
        line.over(end)


def read(level="read_uncommitted"):
    consumer = Consumer({"group.id": "unused", "enable.auto.commit": False, "isolation.level": level, **common})
    # All topics: a request of another form than the one for some.
    parts = consumer.list_topics(timeout=30).topics[call.topic].partitions
    consumer.assign([TopicPartition(call.topic, p, 0) for p in parts])
    n = 0
    while n < int(call.argument):
        for m in take(consumer):
            n += 1
            show(m)
    line.flush()
    consumer.close()


def group():
    ended = line.ended()
    consumer = Consumer({"group.id": call.argument, "auto.offset.reset": "earliest", "enable.auto.commit": False, **common})
    consumer.subscribe([call.topic], on_assign=lambda _, p: line.say("assigned %s" % [x.partition for x in p]))
    while not ended.is_set():
        got = take(consumer)
        for m in got:
            show(m)
        line.flush()
        if got:
            try:
                consumer.commit(asynchronous=False)
            except KafkaException as e:
                # A rebalance may come between reading and committing.
                print("commit:", e, file=sys.stderr)
    consumer.close()
    line.say("closed")


{"login": log_in, "create": create, "produce": produce, "read": read, "transact": transact,
 "committed": lambda: read("read_committed"), "group": group}[call.step]()
