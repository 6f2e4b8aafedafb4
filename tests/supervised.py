"""A service manager for where systemd cannot be booted: supervised.py ROOT UNIT NAME=ADDRESS:PORT ...

Runs ExecStart= of a unit of ROOT in it, as nobody, with folders as DynamicUser= makes them. Holds the sockets named
and what it is given to hold (FDSTORE=1), and passes them on at each start (LISTEN_FDS); prints what it is told
(NOTIFY_SOCKET), what it does not hear too, and exit codes. Another process may follow the one that it started (MAINPID=). It hears the main
process alone (NotifyAccess=main), and kills what is left when that one has ended (KillMode=mixed). Takes `reload`
(ExecReload=), `restart` and `stop` (ExecStop=) from its standard input. When that has been done it waits, as systemd
does, for a main process that was its child when it became that, and kills another one at once.
"""

import ctypes
import fcntl
import os
import re
import selectors
import shlex
import signal
import socket
import struct
import subprocess
import sys

NOBODY = 65534
FIRST_PASSED = 3
PR_SET_CHILD_SUBREAPER = 36


def main():
    root, unit, *listeners = sys.argv[1:]
    # Whoever follows a process becomes our child when that one has left.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with open(f"{root}/{unit}") as file:
        lines = re.findall(r"^(ExecStart|ExecReload|ExecStop)=(.+)$", file.read(), re.M)
    commands = dict(lines)
    for kind in ("lib", "log"):
        folder = f"{root}/var/{kind}/private/tidegate"
        os.makedirs(folder, exist_ok=True)
        os.chown(folder, NOBODY, NOBODY)
        if not os.path.lexists(f"{root}/var/{kind}/tidegate"):
            os.symlink("private/tidegate", f"{root}/var/{kind}/tidegate")
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = f"{root}/run/tidegate-notify"
    if os.path.exists(path):
        os.unlink(path)
    notify.bind(path)
    notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    notify.setblocking(False)
    os.chmod(path, 0o777)
    held = [listening(listener) for listener in listeners]
    process = group = start(root, commands["ExecStart"], held)
    is_child, after_exit, stopping, stops = True, None, None, []
    waiting = selectors.DefaultSelector()
    waiting.register(notify, selectors.EVENT_READ, "told")
    waiting.register(sys.stdin, selectors.EVENT_READ, "asked")
    while True:
        for key, _ in waiting.select(timeout=0.05):
            if key.data == "told":
                process, is_child = followed(process, told(notify, held, process), is_child)
                continue
            asked = os.read(0, 4096).decode().split()
            for word in asked or ["stop"]:
                if word == "reload":
                    reload(root, commands["ExecReload"])
                else:
                    after_exit = word
                    # One after another, each with the main process of then.
                    stops = [command for name, command in lines if name == "ExecStop"] or ["/bin/true"]
                    stopping = begin_stop(root, stops.pop(0), process)
        ended, status = os.waitpid(-1, os.WNOHANG)
        # With its last words it may have named another.
        process, is_child = followed(process, told(notify, held, process), is_child)
        if ended and ended == stopping and stops:
            stopping = begin_stop(root, stops.pop(0), process)
        elif ended and ended == stopping:
            stopping = None
            end(process, group, is_child)
        elif ended and ended != process:
            print("left", os.waitstatus_to_exitcode(status), flush=True)
        elif ended:
            if stopping:
                os.waitpid(stopping, 0)
            kill_rest(group)
            print("exit", os.waitstatus_to_exitcode(status), flush=True)
            if after_exit != "restart":
                return
            is_child, after_exit, stopping, stops = True, None, None, []
            process = group = start(root, commands["ExecStart"], held)


def listening(listener):
    name, address = listener.split("=")
    host, port = address.rsplit(":", 1)
    held = socket.create_server((host, int(port)), backlog=4096)
    return name, held.detach()


# Which one is the main process then, and whether it was our child when it became that.
def followed(process, now, is_child):
    return now, is_child if now == process else parent(now) == os.getpid()


def parent(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return int(file.read().rpartition(") ")[2].split()[1])
    except OSError:
        return None


def begin_stop(root, command, process):
    words = ["chroot", f"--userspec={NOBODY}:{NOBODY}", root, *shlex.split(command.replace("$$", "$"))]
    return os.spawnvpe(os.P_NOWAIT, words[0], words, {"PATH": "/usr/sbin:/usr/bin:/bin", "MAINPID": str(process)})


def end(process, group, is_child):
    try:
        os.kill(process, signal.SIGTERM)
        if not is_child:
            os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def kill_rest(group):
    try:
        os.killpg(group, signal.SIGKILL)
        while True:
            ended, status = os.waitpid(-1, 0)
            print("killed" if os.WIFSIGNALED(status) else "left", ended, flush=True)
    except (ProcessLookupError, ChildProcessError):
        pass


# Hears all that is said, if the main process says it: which one that is then.
def told(notify, held, main):
    while True:
        try:
            words, beside, _, _ = notify.recvmsg(4096, socket.CMSG_SPACE(64 * 4) + socket.CMSG_SPACE(12))
        except BlockingIOError:
            return main
        descriptors, said_by = [], None
        for level, kind, given in beside:
            if kind == socket.SCM_RIGHTS:
                descriptors = list(struct.unpack(f"{len(given) // 4}i", given))
            elif kind == socket.SCM_CREDENTIALS:
                said_by = struct.unpack("3i", given)[0]
        lines = words.decode().split("\n")
        if said_by == main:
            main = noted(lines, descriptors, held) or main
        else:
            print("not heard:", *lines, sep="\n", flush=True)
            for descriptor in descriptors:
                os.close(descriptor)


def noted(lines, descriptors, held):
    names = [line.removeprefix("FDNAME=") for line in lines if line.startswith("FDNAME=")]
    if "FDSTORE=1" in lines:
        # Each once, as systemd keeps them.
        for descriptor in descriptors:
            if os.fstat(descriptor).st_ino in [os.fstat(kept).st_ino for _, kept in held]:
                os.close(descriptor)
            else:
                held.append((names[0] if names else "stored", descriptor))
    if "FDSTOREREMOVE=1" in lines:
        for one in [one for one in held if one[0] in names]:
            os.close(one[1])
            held.remove(one)
    print("\n".join(lines), flush=True)
    follows = [int(line.removeprefix("MAINPID=")) for line in lines if line.startswith("MAINPID=")]
    return follows[0] if follows else None


def reload(root, command):
    words = ["chroot", f"--userspec={NOBODY}:{NOBODY}", root, *command.split()]
    done = subprocess.run(words, capture_output=True, text=True)
    print(f"{done.stdout}{done.stderr}reloaded {done.returncode}", flush=True)


def start(root, command, held):
    process = os.fork()
    if process:
        return process
    # All that it starts is of its group.
    os.setpgid(0, 0)
    # Out of the way of each other first.
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 100) for _, descriptor in held]
    for place, descriptor in enumerate(high):
        os.dup2(descriptor, FIRST_PASSED + place)
    os.closerange(FIRST_PASSED + len(held), 4096)
    os.chroot(root)
    os.chdir("/")
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    environment = {
        "PATH": "/usr/bin:/bin",
        "NOTIFY_SOCKET": "/run/tidegate-notify",
        "STATE_DIRECTORY": "/var/lib/tidegate",
        "LOGS_DIRECTORY": "/var/log/tidegate",
    }
    if held:
        names = ":".join(name for name, _ in held)
        environment |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(held)), "LISTEN_FDNAMES": names}
    words = command.split()
    os.execve(words[0], words, environment)


main()
