"""Reports for people: a terminal table and one HTML file, made from files alone. Never imports torch."""
