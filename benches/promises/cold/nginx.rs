//! nginx with the same objects as files: with direct I/O on threads, and out of the page cache.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{Advice, fadvise};

use crate::origin::content;

/// How it reads its files.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flavour {
    /// `directio 4k; aio threads`.
    Direct,
    /// `sendfile` from the page cache, empty at first.
    Cached,
}

/// A running one; it is killed when dropped.
pub(super) struct Nginx {
    child: Child,
    direct: SocketAddr,
    cached: SocketAddr,
    files: Vec<PathBuf>,
}

impl Nginx {
    /// Writes the objects as files below `folder` and starts it; `None` where it is not installed.
    pub(super) fn start(folder: &Path, paths: &[String], length: u64) -> Option<Nginx> {
        let version = Command::new("nginx").arg("-v").stderr(Stdio::null()).status();
        version.ok().filter(|status| status.success())?;
        let root = folder.join("files");
        let mut files = Vec::new();
        for path in paths {
            let file = root.join(path.trim_start_matches('/'));
            fs::create_dir_all(file.parent().expect("it lies in the root")).unwrap();
            let mut written = File::create_new(&file).unwrap();
            written.write_all(&content(path).bytes(0, length as usize)).unwrap();
            // What is not on the disk yet can't be forgotten either.
            written.sync_all().unwrap();
            files.push(file);
        }
        let (direct, cached) = (free_address(), free_address());
        let config = folder.join("nginx.conf");
        fs::write(&config, text(folder, &root, direct, cached)).unwrap();
        let child = Command::new("nginx")
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        while TcpStream::connect(cached).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Nginx { child, direct, cached, files })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn address(&self, flavour: Flavour) -> SocketAddr {
        match flavour {
            Flavour::Direct => self.direct,
            Flavour::Cached => self.cached,
        }
    }

    /// Nothing of its files is in the page cache any more.
    pub(super) fn forget_pages(&self) {
        for file in &self.files {
            fadvise(File::open(file).unwrap(), 0, None, Advice::DontNeed).unwrap();
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

fn text(folder: &Path, root: &Path, direct: SocketAddr, cached: SocketAddr) -> String {
    let (folder, root) = (folder.display(), root.display());
    format!(
        "daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
thread_pool default threads=32;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000;
    root {root};
    server {{
        listen {direct};
        aio threads;
        directio 4k;
        output_buffers 2 1m;
    }}
    server {{
        listen {cached};
        sendfile on;
        sendfile_max_chunk 1m;
    }}
}}
"
    )
}
