"""Prints all messages of a topic: tests/kafka/read.py BROKER TOPIC HOW-MANY

Waits until there are so many, and then whether more come. Of another implementation than what wrote them.
"""
import sys
import time

from kafka import KafkaConsumer, TopicPartition

broker, topic, many = sys.argv[1], sys.argv[2], int(sys.argv[3])
consumer = KafkaConsumer(bootstrap_servers=broker, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest")
consumer.assign([TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()])
consumer.seek_to_beginning()
messages, until = [], time.monotonic() + 20
while time.monotonic() < until:
    for records in consumer.poll(timeout_ms=200).values():
        messages += [(record.key, record.value) for record in records]
        if len(messages) >= many:
            until = min(until, time.monotonic() + 1)
assert all(key is None for key, _ in messages), "a message has a key"
sys.stdout.buffer.write(b"".join(value + b"\n" for _, value in messages))
