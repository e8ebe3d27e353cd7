//! Sends the bodies of scrape responses in frames. Uncompressed frames are rendered just before they are sent. Frames
//! that will be compressed are rendered in advance, on blocking threads.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::task::{JoinHandle, spawn_blocking, yield_now};

use crate::exposition::frame_capacity;
use crate::lock::lock;
use crate::scrape::Frames;

/// Number of uncompressed frames that are sent before the task yields to other tasks. A frame takes about 50 µs to
/// render and 50 µs to send. Yielding after each frame would make a single scrape a sixth slower.
const FRAMES_PER_YIELD: usize = 4;

/// Number of frames that a blocking thread renders at a time for compression. With one frame, switching threads would
/// take as long as rendering. With larger batches, a response to a slow reader would use more memory.
pub(super) const FRAMES_PER_BATCH: usize = 2;

/// Maximum number of buffers in the pool, enough for a few concurrent scrapes. A pooled buffer holds at most 528 KiB,
/// twice the capacity of a frame, so the pool uses at most about 4 MiB.
const MAX_POOLED_BUFFERS: usize = 8;

/// Rendering or compressing a response failed because of a bug. A response that has already begun is truncated, so that
/// it does not appear to be complete.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("cannot render the response")]
pub(super) struct RenderError;

impl IntoResponse for RenderError {
    fn into_response(self) -> Response {
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

/// Pool of buffers for frames. Allocating a buffer takes longer than filling one.
#[derive(Clone, Debug, Default)]
pub(super) struct BufferPool(Arc<Mutex<Vec<Vec<u8>>>>);

impl BufferPool {
    /// Returns an empty frame. Its buffer is from the pool, or new if the pool is empty.
    pub(super) fn take(&self) -> Frame {
        let text = lock(&self.0).pop();
        Frame {
            text: text.unwrap_or_default(),
            pool: self.clone(),
        }
    }
}

/// A frame of text. When the frame is dropped, its buffer returns to the pool, unless the pool is full or the buffer
/// has no capacity or too much.
pub(super) struct Frame {
    pub(super) text: Vec<u8>,
    pool: BufferPool,
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // Reusing a buffer without capacity saves nothing. Keeping a very large buffer would waste memory.
        if !(1..=2 * frame_capacity()).contains(&self.text.capacity()) {
            return;
        }
        let mut pool = lock(&self.pool.0);
        if pool.len() < MAX_POOLED_BUFFERS {
            self.text.clear();
            pool.push(std::mem::take(&mut self.text));
        }
    }
}

/// Returns a body of uncompressed frames. Each frame is rendered on the sending thread, just before it is sent. This is
/// faster than waking another thread, and the kernel can copy the text while it is still in the CPU cache.
pub(super) fn plain(mut frames: Frames, pool: BufferPool) -> Body {
    let frames = std::iter::from_fn(move || {
        let mut frame = pool.take();
        frames.fill(&mut frame.text);
        (!frame.text.is_empty()).then(|| Bytes::from_owner(frame))
    });
    Body::from_stream(with_yields(frames).map(Ok::<_, Infallible>))
}

/// Returns the items of an iterator as a stream that yields to other tasks before each group of [`FRAMES_PER_YIELD`]
/// items.
fn with_yields<I: Iterator>(items: I) -> impl Stream<Item = I::Item> {
    stream::unfold((items, 0), async |(mut items, count)| {
        if count % FRAMES_PER_YIELD == 0 {
            yield_now().await;
        }
        Some((items.next()?, (items, count + 1)))
    })
}

/// Returns the items of an iterator as a stream. Blocking threads produce the items in batches. The next batch is
/// rendered while the current batch is sent, and no thread blocks while waiting for the reader.
pub(super) fn render_ahead<T: Send + 'static>(
    items: impl Iterator<Item = T> + Send + 'static,
) -> impl Stream<Item = Result<T, RenderError>> {
    let batches = stream::unfold(Some(render_batch(items)), async |rendering| match rendering?.await {
        Ok((items, rendered)) => {
            let next = (rendered.len() == FRAMES_PER_BATCH).then(|| render_batch(items));
            Some((rendered, next))
        }
        Err(_) => Some((vec![Err(RenderError)], None)),
    });
    batches.flat_map(stream::iter)
}

fn render_batch<T: Send + 'static, I: Iterator<Item = T> + Send + 'static>(
    mut items: I,
) -> JoinHandle<(I, Vec<Result<T, RenderError>>)> {
    spawn_blocking(move || {
        let rendered = items.by_ref().take(FRAMES_PER_BATCH).map(Ok).collect();
        (items, rendered)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn frame_buffers_are_reused_and_limited() {
        let pool = BufferPool::default();
        let pooled = || lock(&pool.0).len();
        drop(pool.take());
        assert_eq!(pooled(), 0, "a buffer without capacity must not be pooled");
        let frames: Vec<Frame> = (0..2 * MAX_POOLED_BUFFERS)
            .map(|_| {
                let mut frame = pool.take();
                frame.text.extend_from_slice(b"text");
                frame
            })
            .collect();
        drop(frames);
        assert_eq!(pooled(), MAX_POOLED_BUFFERS);
        let frame = pool.take();
        assert!(frame.text.is_empty() && frame.text.capacity() > 0);
        assert_eq!(pooled(), MAX_POOLED_BUFFERS - 1);
    }

    #[tokio::test]
    async fn other_tasks_run_between_uncompressed_frames() {
        let yields = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&yields);
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
            }
        });
        let items: Vec<_> = with_yields(0..10 * FRAMES_PER_YIELD).collect().await;
        other.abort();
        assert_eq!(items, (0..10 * FRAMES_PER_YIELD).collect::<Vec<_>>());
        let yields = yields.load(Ordering::Relaxed);
        assert!(yields >= 10, "{yields} yields; expected at least 10");
    }

    #[tokio::test]
    async fn items_are_ordered_and_rendered_at_most_two_batches_ahead() {
        for length in 0..7 {
            let rendered = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&rendered);
            let items = (0..length).inspect(move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
            });
            let mut items = std::pin::pin!(render_ahead(items));
            for expected in 0..length {
                assert!(
                    items
                        .next()
                        .await
                        .is_some_and(|item| item.is_ok_and(|item| item == expected))
                );
                assert!(rendered.load(Ordering::Relaxed) <= expected + 2 * FRAMES_PER_BATCH);
            }
            assert!(items.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn rendering_error_truncates_the_response() {
        let items = (0..5).inspect(|item| assert!(*item < 3, "a bug"));
        let rendered: Vec<_> = render_ahead(items).collect().await;
        assert!(matches!(rendered.as_slice(), [Ok(0), Ok(1), Err(RenderError)]));
    }
}
