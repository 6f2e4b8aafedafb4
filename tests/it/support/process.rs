//! The real binary, serving: what it logs is kept, and it is killed when dropped.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::client::Client;
use super::origin::PATIENCE;

/// A process of its own.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Where viewers ask.
    pub(crate) http: SocketAddr,
    admin: SocketAddr,
    logged: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Serves by `config`, whose `log.level` is "info"; returns when it listens.
    pub(crate) fn start(config: &Path) -> Process {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["serve", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut http, mut admin, mut said) = (None, None, String::new());
        while http.is_none() || admin.is_none() {
            let line =
                lines.next().unwrap_or_else(|| panic!("it does not listen: {said}")).unwrap();
            said = line.clone();
            let after = |words: &str| line.split_once(words)?.1.trim().parse().ok();
            http = http.or_else(|| after(" http at "));
            admin = admin.or_else(|| after(" admin at "));
        }
        let logged = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&logged);
        // Unread, a full pipe would stop it.
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| log.lock().unwrap().push(line));
        });
        Process { child, http: http.unwrap(), admin: admin.unwrap(), logged }
    }

    /// Records on its volume.
    pub(crate) async fn entries(&self) -> u64 {
        let admin = Client::plain(self.admin, "admin.test");
        let text = admin.get("/metrics").send().await.body;
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().find(|line| line.starts_with("tidegate_ssd_index_entries{"));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("there is a volume")
    }

    /// What it has logged since it listened, once a line of that says `words`.
    pub(crate) async fn logged_until(&self, words: &str) -> Vec<String> {
        let asked = Instant::now();
        loop {
            let logged = self.logged.lock().unwrap().clone();
            if logged.iter().any(|line| line.contains(words)) {
                return logged;
            }
            assert!(asked.elapsed() < PATIENCE, "no line says {words:?}: {logged:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// As the kernel kills what takes too much: no handler runs.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
