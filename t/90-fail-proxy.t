#!/usr/bin/perl
# Guards: whichever call fails in a proxy, the master lives, a request ends well or with a reason, the next one works.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use FailNth;
use IO::Socket qw(SHUT_WR);
use MIME::Base64 qw(decode_base64);
use Test::More;
use Time::HiRes qw(time);

my $wait = 4 * slow_factor();
my ($master, $worker) = (fail_page('proxy'), fail_page('proxy', 'worker'));
my $p = with_pages($master, sub { proxy(workers => 1, token_timeout => 1, accept_timeout => 1) });

# Which of these can be read first? undef: none within the deadline.
sub first_of {
	my (@socks) = @_;
	my $bits = '';
	vec($bits, fileno $_, 1) = 1 for @socks;
	return undef if select(my $out = $bits, undef, undef, $wait) <= 0;
	return (grep { vec($out, fileno $_, 1) } @socks)[0];
}

# How a request ended that did not end well.
sub refusal {
	my ($r, $where) = @_;
	return "silent $where" if !defined $r;
	return "$where error $r->{error}{code}" if $r->{error};
	return $r->{http} ? "$where http $r->{http}" : "$where closed";
}

sub answer_of {
	my ($ask) = @_;
	return first_of($ask->{sock}) ? $ask->answer(1) : undef;
}

# A asks, B is told and says yes: (token) or (undef, why not).
sub get_token {
	my $ask = eval { $p->ask } // return (undef, 'ask connect');
	while ((first_of($ask->{sock}, $p->{hyper}) // return (undef, 'silent ask')) == $p->{hyper}) {
		my $told = $p->told(1); # or nothing; or that of a connection that the proxy has given up since
		$told->answer if $told;
	}
	my $r = answer_of($ask);
	return $r && $r->{result} ? decode_base64($r->{result}{token}) : (undef, refusal($r, 'ask'));
}

sub come {
	my ($token) = @_;
	return eval { $p->come($token) };
}

sub through {
	my ($from, $to, $data) = @_;
	send_all($from, $data);
	my $got = '';
	while (length $got < length $data) {
		first_of($to) // return 'silent pair';
		my $n = sysread $to, $got, 65536, length $got;
		return 'pair closed' if !$n;
	}
	return $got eq $data ? 'ok' : 'silent wrong bytes';
}

sub meet {
	my ($token) = @_;
	my $one = come($token) // return 'first connect';
	my $two = come($token) // return 'second connect';
	my $data = pack 'N*', 1 .. 256;
	for my $dir ([ $one, $two ], [ $two, $one ]) {
		my $said = through(@$dir, $data);
		return $said if $said ne 'ok';
	}
	for my $dir ([ $one, $two ], [ $two, $one ]) {
		shutdown $dir->[0], SHUT_WR;
		my ($rest, $how) = read_to_end($dir->[1], 4);
		return $how eq 'timeout' ? 'silent end' : "end $how" if $rest ne '' || $how ne 'eof';
	}
	return 'ok';
}

sub paired {
	my ($token, $why) = get_token();
	return defined $token ? meet($token) : $why;
}

# One party comes, the other never does.
sub expired {
	my ($token, $why) = get_token();
	return $why if !defined $token;
	my $sock = come($token) // return 'first connect';
	my ($data, $how) = read_to_end($sock, 4);
	return $how eq 'timeout' ? 'silent parked' : $data ne '' ? 'silent bytes' : 'ok';
}

# Descriptors as before; a worker that was replaced is as it was when it began.
sub fds { return [ map { my $pid = $_; scalar grep { (readlink($_) // '') !~ /^pipe:/ } glob "/proc/$pid/fd/*" } $p->{d}->pid, $p->{d}->children ] }
my $base = wait_until { fds()->[1] && paired() eq 'ok' && fds() };
sub settled {
	return wait_until { my $now = fds(); @$now == @$base && !grep { $now->[$_] > $base->[$_] } 0 .. $#$now } 6;
}
sub runs { return $p->{d}->is_running }

# libevent does not tell that a bufferevent could not be made whole: the connection ends by request_timeout.
my %common = (settled => \&settled, runs => \&runs, excused => qr/bev_new/);
fail_walk($master, $_, scenario => \&paired, %common) for qw(mem fd kernel send recv msg);
fail_walk($worker, $_, scenario => \&paired, %common) for qw(mem fd kernel send recv msg splice);
# One party comes, the other never does: its end is the token's, whatever failed. An expiry takes a second each.
fail_walk($master, $_, scenario => \&expired, %common, what => "an expiry, $_", short => 4) for qw(mem kernel);
hyper_done();
