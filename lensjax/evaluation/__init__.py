"""From a run or a file of images to tables and a report, by one protocol."""
