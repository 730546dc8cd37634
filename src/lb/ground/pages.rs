//! A vector in pages.

use std::ops::{Index, IndexMut};

use super::memory::{Mover, buffer};

/// The number of elements of a full page.
const PAGE: usize = 1 << SHIFT;
const SHIFT: usize = 10;

/// A vector in pages of 1,024 elements. It grows by a page and shrinks by a page. So no push and no pop moves more than the
/// elements of one page, and a vector that has become short gives its memory back.
#[derive(Clone, Debug)]
pub struct Pages<T> {
    /// All are full, but for the last one with elements. Behind it there is at most one page without any.
    pages: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Pages<T> {
    fn default() -> Pages<T> {
        Pages {
            pages: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Pages<T> {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flatten()
    }

    /// The first element.
    pub fn first(&self) -> Option<&T> {
        self.pages.first()?.first()
    }

    /// The element at a place.
    pub fn get(&self, at: usize) -> Option<&T> {
        self.pages.get(at >> SHIFT)?.get(at % PAGE)
    }

    /// Adds an element behind the others.
    pub fn push(&mut self, element: T) {
        let page = self.len >> SHIFT;
        if page == self.pages.len() {
            // The first page grows as vectors do: many have few elements.
            let room = if page == 0 { 0 } else { PAGE };
            self.pages.push(Vec::with_capacity(room));
        }
        self.pages[page].push(element);
        self.len += 1;
    }

    /// Takes out the last element.
    pub fn pop(&mut self) -> Option<T> {
        let last = self.len.checked_sub(1)?;
        let page = last >> SHIFT;
        let element = self.pages[page].pop();
        self.len = last;
        // An empty page stays until the one before it is half empty: else a vector could free and allocate it in turn.
        if last % PAGE == PAGE / 2 {
            self.pages.truncate(page + 1);
            shrink(&mut self.pages);
        }
        if page == 0 {
            shrink(&mut self.pages[0]);
        }
        element
    }

    /// Takes out an element, and puts the last one in its place.
    pub fn swap_remove(&mut self, at: usize) -> Option<T> {
        let last = self.pop()?;
        Some(match at == self.len {
            true => last,
            false => std::mem::replace(&mut self[at], last),
        })
    }

    /// Lets the mover move the pages.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.pages);
        self.pages.iter_mut().for_each(|page| by.vec(page));
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        buffer(&self.pages) + self.pages.iter().map(buffer).sum::<usize>()
    }
}

/// Gives half of the room back, if a quarter is used.
fn shrink<T>(vec: &mut Vec<T>) {
    if vec.capacity() > 16 && vec.len() * 4 <= vec.capacity() {
        vec.shrink_to(vec.len() * 2);
    }
}

impl<T> Index<usize> for Pages<T> {
    type Output = T;

    #[inline(always)]
    fn index(&self, at: usize) -> &T {
        &self.pages[at >> SHIFT][at % PAGE]
    }
}

impl<T> IndexMut<usize> for Pages<T> {
    #[inline(always)]
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.pages[at >> SHIFT][at % PAGE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_vector() {
        let (mut pages, mut plain) = (Pages::default(), Vec::new());
        for round in 0..4 {
            for i in 0..3 * PAGE + round {
                pages.push(i);
                plain.push(i);
            }
            for i in 0..2 * PAGE {
                match i % 3 {
                    0 => assert_eq!(pages.pop(), plain.pop()),
                    _ => {
                        let at = i % plain.len();
                        assert_eq!(pages.swap_remove(at), Some(plain.swap_remove(at)));
                    }
                }
            }
            assert_eq!(
                pages.iter().collect::<Vec<_>>(),
                plain.iter().collect::<Vec<_>>()
            );
            assert_eq!((pages.len(), pages.first()), (plain.len(), plain.first()));
            assert_eq!(pages.get(plain.len()), None);
        }
        while plain.pop().is_some() {
            assert!(pages.pop().is_some());
        }
        assert!(pages.len() == 0 && pages.pop().is_none());
    }

    #[test]
    fn a_short_one_gives_its_memory_back() {
        let mut pages = Pages::default();
        (0..100 * PAGE as u64).for_each(|i| pages.push(i));
        assert!(pages.heap_bytes() < 102 * PAGE * 8);
        while pages.len() > PAGE {
            pages.pop();
        }
        assert!(pages.heap_bytes() < 3 * PAGE * 8);
        while pages.len() > 1 {
            pages.pop();
        }
        assert!(pages.heap_bytes() < 4096, "{}", pages.heap_bytes());
    }
}
