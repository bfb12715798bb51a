"""Writes a few lines to a topic and reads them back, as a client of Kafka 0.8.0.

Usage: demo.py [HOST:PORT [TOPIC]]      (default: 127.0.0.1:9092 example-python)
"""

import sys

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

# kafka-python must be told the version: it then asks for nothing that a broker
# of 0.8.0 does not know. Such a broker keeps no consumer offsets, hence no group.
OLD = (0, 8, 0)
LINES = ["three hulls", "one boat", "steady in a blow"]


def main():
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9092"
    topic = sys.argv[2] if len(sys.argv) > 2 else "example-python"

    producer = KafkaProducer(bootstrap_servers=address, api_version=OLD, acks="all", retries=10)
    offsets = []
    for line in LINES:
        sent = producer.send(topic, line.encode(), partition=0).get(timeout=30)
        offsets.append(sent.offset)
        print(f"produced  offset {sent.offset}: {line}")
    producer.close()

    consumer = KafkaConsumer(
        bootstrap_servers=address,
        api_version=OLD,
        group_id=None,
        enable_auto_commit=False,
        consumer_timeout_ms=30000,
    )
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek(partition, offsets[0])
    for message in consumer:
        print(f"consumed  offset {message.offset}: {message.value.decode()}")
        if message.offset == offsets[-1]:
            break
    consumer.close()


if __name__ == "__main__":
    main()
