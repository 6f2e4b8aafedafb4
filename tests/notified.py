"""Prints what a service says to its NOTIFY_SOCKET, one assignment a line: notified.py PATH"""

import socket
import sys

with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
    receiver.bind(sys.argv[1])
    while True:
        print(receiver.recv(4096).decode())
