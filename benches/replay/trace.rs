//! Traces: requests of a workload, read from compressed text into memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use tidegate::cache::shadow::{Asked, Reader};
use tidegate::object::{BlockSize, SiteId};
use xxhash_rust::xxh3::xxh3_64;

/// One request, for a part of one object.
#[derive(Clone, Copy)]
struct Request {
    at_ms: u64,
    key_hash: u64,
    title_hash: u64,
    size_bytes: u64,
    offset: u64,
    length_bytes: u64,
    live: bool,
}

/// A workload.
pub(crate) struct Trace {
    pub(crate) name: String,
    requests: Vec<Request>,
    /// Distinct blocks that were asked for.
    footprint_blocks: u64,
    /// What they weigh.
    pub(crate) footprint_bytes: u64,
    pub(crate) asked_bytes: u64,
    /// From the first request to the last.
    pub(crate) duration: Duration,
    block_bytes: u64,
}

impl Trace {
    /// Reads `NAME.txt.zst` of a folder.
    pub(crate) fn read(folder: &Path, name: &str) -> io::Result<Trace> {
        let file = File::open(folder.join(format!("{name}.txt.zst")))?;
        let lines = BufReader::new(zstd::Decoder::new(file)?).lines();
        let mut requests = Vec::new();
        for line in lines {
            let line = line?;
            let request = Request::parse(&line).ok_or_else(|| {
                io::Error::other(format!("line {} is no request: {line}", requests.len() + 1))
            })?;
            requests.push(request);
        }
        let mut trace = Trace {
            name: name.to_owned(),
            requests,
            footprint_blocks: 0,
            footprint_bytes: 0,
            asked_bytes: 0,
            duration: Duration::ZERO,
            block_bytes: BlockSize::MAX.bytes(),
        };
        trace.measure();
        Ok(trace)
    }

    /// Cuts objects into blocks of this size from now on.
    pub(crate) fn cut(&mut self, block_bytes: u64) {
        if self.block_bytes != block_bytes {
            self.block_bytes = block_bytes;
            self.measure();
        }
    }

    fn measure(&mut self) {
        let mut blocks = HashMap::new();
        let mut asked_bytes = 0;
        let mut duration = Duration::ZERO;
        self.each(|at, asked| {
            duration = at;
            blocks.insert(asked.block_hash, asked.block_bytes);
            asked_bytes += asked.asked_bytes;
        });
        self.footprint_blocks = blocks.len() as u64;
        self.footprint_bytes = blocks.values().sum();
        self.asked_bytes = asked_bytes;
        self.duration = duration;
    }

    /// What a block weighs on average.
    pub(crate) fn block_bytes_usual(&self) -> u64 {
        self.footprint_bytes / self.footprint_blocks.max(1)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.len()
    }

    /// Every request of one block, in order, with the time since the start.
    pub(crate) fn each(&self, mut then: impl FnMut(Duration, &Asked)) {
        for request in &self.requests {
            request.each_block(self.block_bytes, &mut then);
        }
    }
}

impl Request {
    /// `t_ms key size offset length`.
    fn parse(line: &str) -> Option<Request> {
        let mut words = line.split(' ');
        let at_ms = words.next()?.parse().ok()?;
        let key = words.next()?;
        let mut number = || words.next()?.parse::<u64>().ok();
        let title = key.split(['.', '/']).next()?;
        Some(Request {
            at_ms,
            key_hash: xxh3_64(key.as_bytes()),
            title_hash: xxh3_64(title.as_bytes()),
            size_bytes: number()?,
            offset: number()?,
            length_bytes: number()?,
            live: key.starts_with('L'),
        })
    }

    fn each_block(&self, block: u64, then: &mut impl FnMut(Duration, &Asked)) {
        let end = (self.offset + self.length_bytes).min(self.size_bytes);
        for index in self.offset / block..end.div_ceil(block) {
            let (first, last) = (index * block, ((index + 1) * block).min(self.size_bytes));
            let from = self.offset.max(first);
            let mut name = [0; 16];
            name[..8].copy_from_slice(&self.key_hash.to_le_bytes());
            name[8..].copy_from_slice(&index.to_le_bytes());
            let asked = Asked {
                block_hash: xxh3_64(&name),
                title_hash: self.title_hash,
                site: SiteId(0),
                block_bytes: last - first,
                asked_bytes: end.min(last) - from,
                reader: if from == first { Reader::Enters } else { Reader::Inside },
                lifetime_left: Duration::MAX,
                live: self.live,
            };
            then(Duration::from_millis(self.at_ms), &asked);
        }
    }
}
