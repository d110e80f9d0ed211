"""A report shown: HTML, Markdown, JUnit XML, a badge, several side by side.

All of it is made of what the JSON of a report holds, and of nothing else.
"""
