use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// Work that waits until it is let go.
fn waiting() -> (Sender<()>, impl FnOnce() + Send + 'static) {
    let (go, gone): (Sender<()>, Receiver<()>) = channel();
    let wait = move || {
        let _ = gone.recv();
    };
    (go, wait)
}

fn pool(growth: Growth) -> &'static Pool {
    Box::leak(Box::new(Pool::new("test", growth)))
}

#[tokio::test]
async fn work_is_done_beside_work_that_waits() {
    for growth in [Growth::ByCaller, Growth::ByThread] {
        let pool = pool(growth);
        let (go, wait) = waiting();
        let first = pool.spawn(wait).expect("a thread");
        assert_eq!(pool.run(|| 7).await.expect("a thread"), 7, "{growth:?}");
        go.send(()).expect("the work waits");
        first.await.expect("done");
    }
}

#[tokio::test]
async fn without_another_thread_work_waits_for_the_reserve() {
    let pool = pool(Growth::ByCaller);
    let (go, wait) = waiting();
    let first = pool.spawn(wait).expect("a thread");
    // As if the kernel refused every other thread.
    pool.lock().threads = THREADS_MAX;
    let mut second = pool.spawn(|| 7).expect("a queue");
    assert!(second.try_recv().is_err(), "the only thread waits");
    go.send(()).expect("the work waits");
    first.await.expect("done");
    assert_eq!(second.await.expect("done"), 7);
}

#[tokio::test]
async fn threads_that_were_replaced_end_and_the_new_one_works() {
    let pool = pool(Growth::ByCaller);
    let name = |pool: &'static Pool| pool.run(|| thread::current().id());
    let before = name(pool).await.expect("a thread");
    let (go, wait) = waiting();
    let old = pool.spawn(wait).expect("a thread");
    pool.renew().expect("a thread");
    assert_ne!(name(pool).await.expect("a thread"), before);
    go.send(()).expect("the work waits");
    old.await.expect("work that has begun is finished");
}

#[tokio::test]
async fn no_more_waits_than_the_queue_holds() {
    let pool = pool(Growth::ByCaller);
    let (_go, wait) = waiting();
    let _first = pool.spawn(wait).expect("a thread");
    pool.lock().threads = THREADS_MAX;
    let waiting: Vec<_> = (0..WAITING_MAX).map_while(|_| pool.spawn(|| ()).ok()).collect();
    assert!(waiting.len() >= WAITING_MAX - 1);
    assert!(matches!(pool.spawn(|| ()), Err(ThreadError::Full)));
}
