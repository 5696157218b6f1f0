"""A report on the warehouse as one HTML file: what it contains, its charts, and the page. Reads, but writes no row."""
