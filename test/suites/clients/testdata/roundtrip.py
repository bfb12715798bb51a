"""Produces 200 values to each of two partitions and reads them back.

Usage: roundtrip.py HOST:PORT TOPIC none|gzip|snappy
Exits non-zero, with the reason, when what comes back is not what was sent.
"""

import sys

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

OLD = (0, 8, 0)
COUNT = 200


def main():
    address, topic, codec = sys.argv[1:4]
    producer = KafkaProducer(
        bootstrap_servers=address,
        api_version=OLD,
        acks="all",
        compression_type=None if codec == "none" else codec,
    )
    pending = []
    for partition in range(2):
        for i in range(COUNT):
            value = f"partition {partition} value {i}".encode()
            pending.append((i, producer.send(topic, value=value, key=b"k", partition=partition)))
    producer.flush(timeout=30)
    for i, future in pending:
        offset = future.get(timeout=30).offset
        if offset != i:
            sys.exit(f"value {i} was acknowledged at offset {offset}")
    producer.close()

    for partition in range(2):
        consumer = KafkaConsumer(
            bootstrap_servers=address,
            api_version=OLD,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            consumer_timeout_ms=20000,
        )
        tp = TopicPartition(topic, partition)
        consumer.assign([tp])
        consumer.seek_to_beginning(tp)
        got = []
        for message in consumer:
            got.append((message.offset, message.key, message.value))
            if len(got) == COUNT:
                break
        consumer.close()
        want = [(i, b"k", f"partition {partition} value {i}".encode()) for i in range(COUNT)]
        if got != want:
            sys.exit(f"partition {partition}: {len(got)} messages, first {got[:2]}, want {want[:2]}")


main()
