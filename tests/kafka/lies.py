"""Stands between Tidegate and a broker of Kafka: tests/kafka/lies.py PORT BEHIND FOLDER

Passes on whole messages of the protocol. While there is a file FOLDER/lie, the broker gets what is produced and its
answer is lost with the connection; once, the file goes then.
"""
import asyncio
import pathlib
import sys

PORT, BEHIND, FOLDER = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
PRODUCE = 0


async def message(reader):
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size, "big"))


async def serve(reader, writer):
    try:
        answers, asking = await asyncio.open_connection("127.0.0.1", BEHIND)
    except OSError:
        writer.close()
        return
    losing = False

    async def ask():
        nonlocal losing
        while True:
            asked = await message(reader)
            if int.from_bytes(asked[4:6], "big") == PRODUCE and (FOLDER / "lie").exists():
                (FOLDER / "lie").unlink()
                losing = True
            asking.write(asked)
            await asking.drain()

    async def answer():
        while True:
            answered = await message(answers)
            if losing:
                return
            writer.write(answered)
            await writer.drain()

    both = [asyncio.create_task(ask()), asyncio.create_task(answer())]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    for task in both:
        task.cancel()
    await asyncio.gather(*both, return_exceptions=True)
    writer.close()
    asking.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", PORT)
    await server.serve_forever()


asyncio.run(main())
