"""The page of `secure-infer web`: one text on its way, step by step, with the data of that very call.

door        who is let in: the token, Host, Origin
pageserver  HTTP on loopback: the page's files, and what it asks
api         what the page asks, checked, and the answers to it
places      where queries go: a server and parties of this machine's own, or what the command line names
connection  one model at one place: a client, and recorders on its sockets
passed      bytes that passed a socket, as the messages they are
story       one call as the page tells it
figures     histograms, strips and bars of it
page/       HTML, style and script; nothing else is loaded
"""
