//! Work that begins where it is wanted and goes on elsewhere: a read of a volume is given to the
//! device by the viewer's thread, and what is to be done when the bytes are there is not its work.
//!
//! A task that is spawned first costs a wake-up of the other runtime only to learn that it waits.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use tokio::runtime::Handle;

/// Does what `work` can do without waiting, and the rest on `runtime` once it is woken. It ends
/// even if nobody waits for it; what it panics with before it first waits is the caller's.
pub(super) fn begin_here<F>(runtime: &Handle, work: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let begun = Arc::new(Begun { rest: Mutex::new(Rest::Begins), runtime: runtime.clone() });
    let waker = Waker::from(begun.clone());
    let mut work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(work);
    // Timers it makes belong to the runtime it will be on.
    let _inside = runtime.enter();
    if work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
        return;
    }
    let mut rest = begun.rest();
    match *rest {
        Rest::Begins => *rest = Rest::Waits(work),
        Rest::Woken | Rest::Waits(_) => {
            drop(rest);
            runtime.spawn(work);
        }
    }
}

struct Begun {
    rest: Mutex<Rest>,
    runtime: Handle,
}

enum Rest {
    /// It is not known yet whether it waits.
    Begins,
    Waits(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// It goes on by itself.
    Woken,
}

impl Begun {
    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Begun {
    fn wake(self: Arc<Self>) {
        let rest = mem::replace(&mut *self.rest(), Rest::Woken);
        if let Rest::Waits(work) = rest {
            self.runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::runtime::Builder;
    use tokio::sync::{mpsc, oneshot};
    use tokio::time::{Duration, sleep};

    use super::*;

    #[test]
    fn it_begins_on_this_thread_and_goes_on_on_the_runtime_when_it_is_woken() {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let (say, mut heard) = mpsc::channel(4);
        let (wake, woken) = oneshot::channel::<()>();
        begin_here(runtime.handle(), async move {
            say.send(thread::current().id()).await.unwrap();
            woken.await.unwrap();
            say.send(thread::current().id()).await.unwrap();
            sleep(Duration::from_millis(1)).await;
            say.send(thread::current().id()).await.unwrap();
        });
        let here = thread::current().id();
        assert_eq!(heard.try_recv(), Ok(here));
        assert_eq!(heard.try_recv(), Err(mpsc::error::TryRecvError::Empty));
        wake.send(()).unwrap();
        for _ in 0..2 {
            assert_ne!(heard.blocking_recv().unwrap(), here);
        }
        assert_eq!(heard.blocking_recv(), None, "it is over, and nothing of it is left");
    }

    #[test]
    fn it_goes_on_when_it_was_woken_before_it_waited() {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let (say, heard) = oneshot::channel();
        begin_here(runtime.handle(), async move {
            tokio::task::yield_now().await;
            sleep(Duration::from_millis(1)).await;
            say.send(()).unwrap();
        });
        heard.blocking_recv().unwrap();
    }

    #[test]
    fn what_need_not_wait_is_done_at_once() {
        let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (say, mut heard) = oneshot::channel();
        begin_here(runtime.handle(), async move { say.send(7).unwrap() });
        assert_eq!(heard.try_recv(), Ok(7));
    }
}
