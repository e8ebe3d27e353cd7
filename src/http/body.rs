//! Body of a scrape response, sent in frames: plain ones are rendered as they are sent, and those to be compressed two
//! ahead, off the I/O threads.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::task::{JoinHandle, spawn_blocking, yield_now};

use crate::exposition::frame_capacity;
use crate::scrape::Frames;

/// Plain frames sent before other connections get their turn. A frame takes a twentieth of a millisecond to render and
/// as much to send. Turns after each frame make a single scrape a sixth slower.
const FRAMES_PER_TURN: usize = 4;

/// Frames rendered at once for compression. With one, switching threads would take as long as rendering; with more, a
/// slow reader would use more memory without being faster.
pub(super) const FRAMES_AT_ONCE: usize = 2;

/// Buffers kept for the next response. A connection uses a few at once, so these serve a few scrapers. A buffer has at
/// most 528 KiB, twice the capacity of a frame, so that all of them hold at most about 4 MiB.
const SPARE_FRAMES: usize = 8;

/// A bug prevented rendering; the response is cut off, so that it does not look complete.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("cannot render the response")]
pub(super) struct Broken;

impl IntoResponse for Broken {
    fn into_response(self) -> Response {
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

/// Buffers of sent frames, to be reused: fresh memory costs more than writing into it.
#[derive(Clone, Debug, Default)]
pub(super) struct Spare(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spare {
    /// Returns an empty buffer, reused if possible.
    pub(super) fn take(&self) -> Frame {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Frame {
            text: text.unwrap_or_default(),
            spare: self.clone(),
        }
    }
}

/// A frame of text, whose buffer is returned when it is dropped.
pub(super) struct Frame {
    pub(super) text: Vec<u8>,
    spare: Spare,
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // A buffer that grew too large, or was never used, is not kept.
        if !(1..=2 * frame_capacity()).contains(&self.text.capacity()) {
            return;
        }
        let mut spare = self.spare.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_FRAMES {
            self.text.clear();
            spare.push(std::mem::take(&mut self.text));
        }
    }
}

/// Returns a body of uncompressed frames. Each is rendered just before it is sent, by the same thread: that takes less
/// time than waking another one, and the kernel copies the text while it is still in this core's cache.
pub(super) fn plain(mut frames: Frames, spare: Spare) -> Body {
    let frames = std::iter::from_fn(move || {
        let mut frame = spare.take();
        frames.fill(&mut frame.text);
        (!frame.text.is_empty()).then(|| Bytes::from_owner(frame))
    });
    Body::from_stream(in_turns(frames).map(Ok::<_, Infallible>))
}

/// Returns the items of an iterator. Other tasks get their turn before every [`FRAMES_PER_TURN`].
fn in_turns<I: Iterator>(items: I) -> impl Stream<Item = I::Item> {
    stream::unfold((items, 0), async |(mut items, count)| {
        if count % FRAMES_PER_TURN == 0 {
            yield_now().await;
        }
        Some((items.next()?, (items, count + 1)))
    })
}

/// Returns the items of an iterator, rendered off the I/O threads; the next ones are rendered while these are sent. No
/// thread waits for the reader in between.
pub(super) fn made_ahead<T: Send + 'static>(
    items: impl Iterator<Item = T> + Send + 'static,
) -> impl Stream<Item = Result<T, Broken>> {
    let batches = stream::unfold(Some(make(items)), async |making| match making?.await {
        Ok((items, made)) => {
            let next = (made.len() == FRAMES_AT_ONCE).then(|| make(items));
            Some((made, next))
        }
        Err(_) => Some((vec![Err(Broken)], None)),
    });
    batches.flat_map(stream::iter)
}

/// Renders the next items.
fn make<T: Send + 'static, I: Iterator<Item = T> + Send + 'static>(
    mut items: I,
) -> JoinHandle<(I, Vec<Result<T, Broken>>)> {
    spawn_blocking(move || {
        let made = items.by_ref().take(FRAMES_AT_ONCE).map(Ok).collect();
        (items, made)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn memory_of_frames_is_reused_and_limited() {
        let spare = Spare::default();
        let held = || spare.0.lock().unwrap_or_else(PoisonError::into_inner).len();
        drop(spare.take());
        assert_eq!(held(), 0, "the pool was empty");
        let frames: Vec<Frame> = (0..2 * SPARE_FRAMES)
            .map(|_| {
                let mut frame = spare.take();
                frame.text.extend_from_slice(b"text");
                frame
            })
            .collect();
        drop(frames);
        assert_eq!(held(), SPARE_FRAMES);
        let frame = spare.take();
        assert!(frame.text.is_empty() && frame.text.capacity() > 0);
        assert_eq!(held(), SPARE_FRAMES - 1);
    }

    #[tokio::test]
    async fn other_tasks_run_between_plain_frames() {
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&turns);
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
            }
        });
        let items: Vec<_> = in_turns(0..10 * FRAMES_PER_TURN).collect().await;
        other.abort();
        assert_eq!(items, (0..10 * FRAMES_PER_TURN).collect::<Vec<_>>());
        let turns = turns.load(Ordering::Relaxed);
        assert!(turns >= 10, "{turns}");
    }

    #[tokio::test]
    async fn items_are_ordered_and_rendered_slightly_ahead() {
        for length in 0..7 {
            let made = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&made);
            let items = (0..length).inspect(move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
            });
            let mut items = std::pin::pin!(made_ahead(items));
            for expected in 0..length {
                assert!(
                    items
                        .next()
                        .await
                        .is_some_and(|item| item.is_ok_and(|item| item == expected))
                );
                assert!(made.load(Ordering::Relaxed) <= expected + 2 * FRAMES_AT_ONCE);
            }
            assert!(items.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn rendering_error_truncates_the_response() {
        let items = (0..5).inspect(|item| assert!(*item < 3, "a defect"));
        let made: Vec<_> = made_ahead(items).collect().await;
        assert!(matches!(made.as_slice(), [Ok(0), Ok(1), Err(Broken)]));
    }
}
