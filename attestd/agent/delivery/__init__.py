"""How do credentials come to programs as files, and go again at their end?"""
