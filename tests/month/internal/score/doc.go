// Package score compares notifications with the incidents of a world.
package score
