#!/usr/bin/perl
# Servers that started before their directory had records serve within seconds of its set-up, without a restart.
use strict;
use warnings;
use HyperMesh;
use HyperTest;
use Test::More;
use Time::HiRes qw(time);

my $mesh = mesh(start => 0);
$mesh->start_one($_) for qw(sd proxy hd-1 hd-2 ph);
my $early = $mesh->ping;
isnt($early->{error}{code}, undef, 'without records a call is refused');
is($early->{result}, undef, 'and not answered');

$mesh->submit;
my $start = time;
my $answer;
wait_until { $answer = $mesh->ping; $answer->{result} } 15;
is($answer->{result}{serverInfo}{name}, 'hd-2', 'with them hd-2 answers') or diag explain $answer;
note sprintf 'after %.1f s', time - $start;
hyper_done();
