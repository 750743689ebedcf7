"""`kie-cover collect`: from ids to images on disk, and on from where it stopped.

`command` says what it is asked, and `run` puts the parts together: `intake` notes ids for good and
says which are worked on, `crew` saves what is done, `lines` has a line for each cover, and `haul`
is what has come of all of them.
"""
