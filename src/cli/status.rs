//! `tidegate status`: what a running appliance is doing, in a few lines.
//!
//! Asks the admin listener for its status, once, and changes nothing. What an appliance of another
//! version says is shown as far as it is understood.

use std::path::PathBuf;

use super::{Failure, USUAL_CONFIG, admin};

mod table;

const EXAMPLES: &str = "\
Examples:
  tidegate status
  tidegate status --config tidegate.toml
  tidegate status --admin http://127.0.0.1:9180
  tidegate status --admin http://edge-7.example.com:9180 --token-file viewers-token
  tidegate status --json | jq '.ssd.volumes[]? | {name, state}'

Counts are since the start of the process. Its lines:
  viewers     connections that are open, and requests that were answered
  failed      requests answered with a 5xx, and those whose body had to be cut short
  origin      one that does not answer, and since when
  sent        bytes of bodies, by where they came from: ram, ssd, or an origin (filled, passed on)
  offload     the part of what was sent that no origin had to send
  first byte  how long it took from a request to the first byte of its answer
  fleet       the box of a fleet that it is: the snapshot it goes by, and how long ago a control
              plane last said that there is no later one; since when none hears it, and why
  control     the control plane beside it: whether it runs, and why not
  memory      what is used of `memory.total`, and what of it the ram tier holds
  site        its `share` against the others'; the ram it holds, and what of it is its own: it stays
              so whatever others want, the rest is lent. Beyond its share of something: it has
              more than its part while others want theirs, and its new requests are refused first
The columns of volumes:
  full        the part of its size that holds what can be found
  reads, writes, queue  those that are done, and those that wait or are under way
  share       its part of all bytes read from volumes
  p99 read    99 of 100 reads took no longer
  today       written since midnight, UTC, of what may be written in a day
  lasts       when a drive that is rated for that over five years is worn out, written to as since
              the start; - in the first ten minutes, and wherever else something is not known

Exit codes: 0 shown, 1 no appliance answers, 64 misused";

/// Show what the running appliance is doing
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The configuration it runs with: its admin listener is asked
    #[arg(long, value_name = "FILE", default_value = USUAL_CONFIG)]
    config: PathBuf,
    /// Ask this admin listener instead; no configuration is read
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// Show the token in this file: of a viewer, who asks from another machine
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print the status as JSON: sizes in bytes
    #[arg(long)]
    json: bool,
}

/// Asks; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let told = admin::status(args.admin.as_deref(), &args.config, args.token_file.as_deref())?;
    Ok(match args.json {
        true => format!("{:#}\n", told.value),
        false => table::of(&admin::understood(&told)?, &told.address),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::table::HEADS;

    use super::*;

    #[test]
    fn each_word_that_it_shows_is_explained_in_its_help() {
        let first = |line: &'static str| line.strip_prefix("  ")?.split("  ").next();
        let explained = EXAMPLES.lines().skip_while(|line| !line.ends_with("Its lines:"));
        let explained: Vec<_> =
            explained.filter_map(first).flat_map(|words| words.split(", ")).collect();
        let shown = include_str!("status/expected.txt").lines().filter_map(first);
        // Behind the lines come volumes; that of the log is a sentence.
        let shown: Vec<_> =
            shown.take_while(|word| *word != "volume").filter(|word| *word != "log").collect();
        // How a volume is called, and how it is, are words by themselves.
        for word in shown.iter().chain(&HEADS[2..]) {
            assert!(explained.contains(word), "{word} is not explained: {explained:?}");
        }
        for words in
            ["is its own: it stays", "Beyond its share of", "the start; - in the first ten"]
        {
            assert!(EXAMPLES.contains(words), "{words}");
        }
    }

    #[test]
    fn an_appliance_that_does_not_run_is_one_clear_line() {
        // Bound and let go: nobody listens there.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let args = Args {
            config: PathBuf::new(),
            admin: Some(free.to_string()),
            token_file: None,
            json: false,
        };
        let Err(Failure::Failed(text)) = run(&args) else { panic!("nobody is there") };
        let expected =
            format!("no appliance answers at {free}: connection refused; is it running?");
        assert_eq!(text, expected);
    }

    #[test]
    fn who_is_no_admin_listener_is_told_so_in_one_clear_line() {
        let body = "HTTP/1.1 200 OK\r\ncontent-length: ";
        for (answer, why) in [
            (format!("{body}2\r\n\r\n{{}}"), "what it answers is something else"),
            (format!("{body}15\r\n\r\n<html>hi</html>"), "what it answers is something else"),
            (format!("{body}9\r\n\r\n{{}}"), "its answer has no end"),
            (
                "HTTP/1.1 421 Misdirected Request\r\ncontent-length: 0\r\n\r\n".to_owned(),
                "it answers 421 Misdirected Request",
            ),
            ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "it does not speak plain HTTP"),
            (String::new(), "it does not speak plain HTTP"),
        ] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let answering = std::thread::spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                let asked = stream.read(&mut [0; 4096]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                asked
            });
            let args = Args {
                config: PathBuf::new(),
                admin: Some(address.clone()),
                token_file: None,
                json: true,
            };
            let Err(Failure::Failed(text)) = run(&args) else { panic!("{why}") };
            let expected = format!(
                "{address} is no admin listener of Tidegate: {why}; ask where `listeners.admin` \
                 says"
            );
            assert_eq!(text, expected);
            assert!(answering.join().unwrap() > 0);
        }
    }
}
